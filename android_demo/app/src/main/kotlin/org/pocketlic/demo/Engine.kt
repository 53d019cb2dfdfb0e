package org.pocketlic.demo

import java.io.Closeable
import java.nio.ByteBuffer
import java.util.concurrent.ExecutionException
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicBoolean

/** What a `.plic` file says about itself; [components] is 3 for RGB and 1 for grey. */
data class PictureInfo(val width: Int, val height: Int, val components: Int, val quality: Double)

/** SHA-256 of the symbols and of the pixels that a file decodes to, hexadecimal. */
data class Hashes(val symbols: String, val pixels: String)

fun hex(bytes: ByteArray): String = bytes.joinToString("") { "%02x".format(it) }

/**
 * Encoder and decoder of one model, on the native core or, for the networks, on a [runner].
 *
 * Entropy coding is always the core's, so files and symbols are exact with any runner. [tile] is the side in pixels
 * of the only squares that the runner takes, 0 for any size. Safe to share between threads.
 */
class Engine(weights: ByteArray, private val runner: NetworkRunner? = null, tile: Int = 0) : Closeable {
    private var handle = Native.open(weights, runner, tile)
    val modelId: String = hex(Native.modelId(handle))
    val profile: String = Native.profile(handle)

    /**
     * Hands the rows of a picture to [sink], a strip at a time, on up to [threads] threads at once.
     *
     * Throws PlicException on damaged files, and with STOPPED when the sink answered false.
     */
    fun decode(file: ByteArray, threads: Int = 1, sink: RowSink) {
        val info = inspect(file)
        val strips = (info.height + STRIP - 1) / STRIP
        // A thread's tiles take as many bytes as the picture is wide, about 8 KB for each column.
        val affordable = (MAX_MEMORY / (BYTES_PER_COLUMN * info.width)).toInt()
        val workers = minOf(threads, strips, affordable).coerceAtLeast(1)
        if (workers == 1) return Native.decode(handle, file, MAX_MEMORY, 0, info.height, sink)
        val stopped = AtomicBoolean()
        val pool = Executors.newFixedThreadPool(workers)
        try {
            val parts = (0 until workers).map { worker ->
                val first = strips * worker / workers * STRIP
                val end = minOf(strips * (worker + 1) / workers * STRIP, info.height)
                pool.submit {
                    Native.decode(handle, file, MAX_MEMORY / workers, first, end - first) { from, count, pixels ->
                        if (!stopped.get() && !sink.rows(from, count, pixels)) stopped.set(true)
                        !stopped.get()
                    }
                }
            }
            for (part in parts) part.get()
        } catch (failure: ExecutionException) {
            stopped.set(true)
            throw failure.cause ?: failure
        } finally {
            pool.shutdown()
            pool.awaitTermination(Long.MAX_VALUE, TimeUnit.NANOSECONDS)
        }
    }

    /** The `.plic` file of the rows that [source] gives, at a quality of 0 to 100. */
    fun encode(width: Int, height: Int, components: Int, quality: Double, source: RowSource): ByteArray =
        Native.encode(handle, width, height, components, Math.round(100 * quality).toInt(), MAX_MEMORY, source)

    fun hash(file: ByteArray): Hashes {
        val both = Native.hash(handle, file, MAX_MEMORY)
        return Hashes(hex(both.copyOfRange(0, 32)), hex(both.copyOfRange(32, 64)))
    }

    /** Entropy decoding alone, for its time; returns the number of symbols. */
    fun symbols(file: ByteArray): Long = Native.symbols(handle, file, 4 * MAX_MEMORY)

    /** One network, as a [NetworkRunner] does it. */
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
        /** Bytes that a call may take. Encoding 12 megapixels takes 52 MB, decoding them 32 MB a thread. */
        const val MAX_MEMORY = 128L shl 20

        /** What every `.plic` file begins with. */
        val MAGIC = byteArrayOf(0xD0.toByte(), 0x4C, 0x0D, 0x0A)
        private const val BYTES_PER_COLUMN = 8400L
        private const val STRIP = 512

        /** Checks a whole file but decodes nothing. Throws PlicException when it is damaged, or no such file. */
        fun inspect(file: ByteArray): PictureInfo {
            val (width, height, components, quality) = Native.info(file)
            return PictureInfo(width, height, components, quality / 100.0)
        }
    }
}
