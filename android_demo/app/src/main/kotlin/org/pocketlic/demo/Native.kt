package org.pocketlic.demo

import java.nio.ByteBuffer

/** An error of the native core, in one line; [status] is plic.h's plic_status. */
class PlicException(val status: Int, message: String) : Exception(message) {
    companion object {
        const val STOPPED = 7
    }
}

/** Receives [count] rows from row [first] on; the array is reused. False stops the decoder. */
fun interface RowSink {
    fun rows(first: Int, count: Int, pixels: ByteArray): Boolean
}

/** Fills one row; rows are requested from top to bottom. False stops the encoder. */
fun interface RowSource {
    fun row(index: Int, pixels: ByteArray): Boolean
}

/**
 * Runs a network in place of the native core, int8 [height][width][channels] in direct buffers.
 *
 * When it returns false or throws, the core computes that network itself. Any thread may call it.
 */
fun interface NetworkRunner {
    fun run(name: String, height: Int, width: Int, inputs: Array<ByteBuffer>, outputs: Array<ByteBuffer>): Boolean
}

/** The functions of pocketlic_jni.cpp, which only [Engine] calls. Handles come from [open]. */
internal object Native {
    init {
        System.loadLibrary("pocketlic")
    }

    external fun open(weights: ByteArray, runner: NetworkRunner?, tile: Int): Long

    external fun close(handle: Long)

    external fun modelId(handle: Long): ByteArray

    external fun profile(handle: Long): String

    external fun info(file: ByteArray): IntArray

    external fun decode(handle: Long, file: ByteArray, maxMemory: Long, threads: Int, sink: RowSink)

    external fun encode(
        handle: Long,
        width: Int,
        height: Int,
        components: Int,
        qualityHundredths: Int,
        maxMemory: Long,
        source: RowSource,
    ): ByteArray

    external fun hash(handle: Long, file: ByteArray, maxMemory: Long): ByteArray

    external fun symbols(handle: Long, file: ByteArray, maxMemory: Long): Long

    external fun run(
        handle: Long,
        name: String,
        height: Int,
        width: Int,
        inputs: Array<ByteBuffer>,
        outputs: Array<ByteBuffer>,
    )
}
