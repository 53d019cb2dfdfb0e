package org.pocketlic.demo

import android.content.Context
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.BuiltinNpuAcceleratorProvider
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import com.google.ai.edge.litert.TensorBuffer
import java.io.Closeable
import java.io.File
import java.nio.ByteBuffer

/** Tile size in pixels of the networks among the assets: `export --tile`. */
private const val TILE = 512

/** LiteRT's accelerators, in the app's order of preference. */
fun delegates(context: Context): List<Delegate> = listOf(
    Delegate("LiteRT NPU", "NPU", TILE) {
        LiteRtRunner(context, CompiledModel.Options(Accelerator.NPU), npuEnvironment(context))
    },
    Delegate("LiteRT XNNPACK", "CPU", TILE) { threads ->
        val options = CompiledModel.Options(Accelerator.CPU)
        options.cpuOptions = CompiledModel.CpuOptions(threads, null, null)
        LiteRtRunner(context, options, Environment.create())
    },
)

/**
 * LiteRT with the vendor's libraries. Without them it silently runs an NPU's networks on the CPU. With them it does not
 * tell which parts it leaves to the CPU either.
 */
private fun npuEnvironment(context: Context): Environment {
    val vendor = BuiltinNpuAcceleratorProvider(context)
    check(vendor.isDeviceSupported()) { "LiteRT knows no NPU in this phone" }
    val libraries = File(vendor.getLibraryDir()).list().orEmpty()
    check(libraries.any { it.startsWith("libLiteRtDispatch") }) { "this build has no vendor's library for LiteRT" }
    return Environment.create(vendor)
}

/** The networks under LiteRT, one compiled model each. Callers of one network take turns. */
private class LiteRtRunner(
    context: Context, options: CompiledModel.Options, private val environment: Environment,
) : NetworkRunner, Closeable {
    private class Network(val model: CompiledModel) {
        val inputs: List<TensorBuffer> = model.createInputBuffers()
        val outputs: List<TensorBuffer> = model.createOutputBuffers()
    }

    private val networks = NAMES.associateWith {
        Network(CompiledModel.create(context.assets, "bundle/$it.tflite", options, environment))
    }

    override fun run(
        name: String, height: Int, width: Int, inputs: Array<ByteBuffer>, outputs: Array<ByteBuffer>,
    ): Boolean {
        val network = networks[name] ?: return false
        synchronized(network) {
            for ((buffer, values) in network.inputs.zip(inputs)) {
                buffer.writeInt8(ByteArray(values.remaining()).also { values.get(it) })
            }
            network.model.run(network.inputs, network.outputs)
            for ((buffer, values) in network.outputs.zip(outputs)) values.put(buffer.readInt8())
        }
        return true
    }

    override fun close() {
        for (network in networks.values) {
            (network.inputs + network.outputs).forEach { it.close() }
            network.model.close()
        }
        environment.close()
    }

    private companion object {
        val NAMES = listOf("analysis", "hyper_analysis", "hyper_synthesis", "context", "synthesis")
    }
}
