package org.pocketlic.demo

import android.content.Context
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.Closeable
import java.io.File
import java.nio.ByteBuffer

/** Tile size in pixels of the programs among the assets: `export --tile`. */
private const val TILE = 512

/** ExecuTorch with XNNPACK. */
fun delegates(context: Context): List<Delegate> =
    listOf(Delegate("ExecuTorch XNNPACK", "CPU", TILE) { threads -> ExecuTorchRunner(context, threads) })

/** The networks under ExecuTorch, which reads one program file each. Callers of one network take turns. */
private class ExecuTorchRunner(context: Context, threads: Int) : NetworkRunner, Closeable {
    private val networks = NAMES.associateWith { name ->
        val file = File(context.cacheDir, "$name.pte")
        context.assets.open("programs/$name.pte").use { from -> file.outputStream().use { from.copyTo(it) } }
        Module.load(file.path, Module.LOAD_MODE_FILE, threads)
    }

    override fun run(
        name: String, height: Int, width: Int, inputs: Array<ByteBuffer>, outputs: Array<ByteBuffer>,
    ): Boolean {
        val module = networks[name] ?: return false
        val values = inputs.map { input ->
            val bytes = ByteArray(input.remaining()).also { input.get(it) }
            val channels = bytes.size.toLong() / (height * width)
            EValue.from(Tensor.fromBlob(bytes, longArrayOf(1, height.toLong(), width.toLong(), channels)))
        }
        val made = synchronized(module) { module.forward(*values.toTypedArray()) }
        for ((value, output) in made.zip(outputs)) output.put(value.toTensor().dataAsByteArray)
        return true
    }

    override fun close() = networks.values.forEach { it.destroy() }

    private companion object {
        val NAMES = listOf("analysis", "hyper_analysis", "hyper_synthesis", "context", "synthesis")
    }
}
