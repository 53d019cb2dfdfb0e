package org.pocketlic.demo

import java.io.Closeable
import java.nio.ByteBuffer
import java.security.MessageDigest

/** The header of a `.plic` file. [components]: 3 for RGB, 1 for grey. [model]: the first bytes of its model's id. */
data class PictureInfo(val width: Int, val height: Int, val components: Int, val quality: Double, val model: String)

/** SHA-256 of a file's symbols and of its pixels, hexadecimal. */
data class Hashes(val symbols: String, val pixels: String)

/** The model among these that made the file with [PictureInfo.model]; null when it is not there. */
fun weightsOf(model: String, all: Sequence<ByteArray>): ByteArray? =
    all.firstOrNull { hex(MessageDigest.getInstance("SHA-256").digest(it)).startsWith(model) }

fun hex(bytes: ByteArray): String = bytes.joinToString("") { "%02x".format(it) }

/**
 * Encoder and decoder of one model, on the native core or, for the networks, on a [runner].
 *
 * Entropy coding is always the core's, so files and symbols are exact with any runner. [tile]: side in pixels of the
 * squares that the runner takes, 0 for any size. Safe to share between threads.
 */
class Engine(weights: ByteArray, private val runner: NetworkRunner? = null, tile: Int = 0) : Closeable {
    private var handle = Native.open(weights, runner, tile)
    val modelId: String = hex(Native.modelId(handle))
    val profile: String = Native.profile(handle)

    /**
     * Decodes a picture on up to [threads] threads and calls [sink] with its rows, from top to bottom.
     *
     * Throws PlicException on damaged files, and with STOPPED when the sink returned false.
     */
    fun decode(file: ByteArray, threads: Int = 1, sink: RowSink) {
        val info = inspect(file)
        Native.decode(handle, file, Memory.decoding(info.width, info.height), threads, sink)
    }

    /** The `.plic` file of the rows that [source] gives, at a quality of 0 to 100. */
    fun encode(width: Int, height: Int, components: Int, quality: Double, source: RowSource): ByteArray =
        Native.encode(handle, width, height, components, Math.round(100 * quality).toInt(), Memory.CALL, source)

    fun hash(file: ByteArray): Hashes {
        val both = Native.hash(handle, file, Memory.CALL)
        return Hashes(hex(both.copyOfRange(0, 32)), hex(both.copyOfRange(32, 64)))
    }

    /** Entropy decoding alone, to time it; returns the number of symbols. */
    fun symbols(file: ByteArray): Long = Native.symbols(handle, file, Memory.CALL)

    /** Runs one network, like a [NetworkRunner]. */
    fun run(name: String, height: Int, width: Int, inputs: Array<ByteBuffer>, outputs: Array<ByteBuffer>): Boolean {
        Native.run(handle, name, height, width, inputs, outputs)
        return true
    }

    override fun close() {
        if (handle != 0L) Native.close(handle)
        handle = 0L
        (runner as? Closeable)?.close()
    }

    companion object {
        /** The first bytes of every `.plic` file. */
        val MAGIC = byteArrayOf(0xD0.toByte(), 0x4C, 0x0D, 0x0A)

        /** Checks a whole file without decoding it. Throws PlicException when it is damaged or not a `.plic` file. */
        fun inspect(file: ByteArray): PictureInfo {
            val info = Native.info(file)
            return PictureInfo(info[0], info[1], info[2], info[3] / 100.0, "%08x%08x".format(info[4], info[5]))
        }
    }
}
