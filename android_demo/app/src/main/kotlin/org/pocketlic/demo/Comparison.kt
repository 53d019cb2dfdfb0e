package org.pocketlic.demo

import java.io.ByteArrayOutputStream
import java.io.OutputStream
import java.util.concurrent.atomic.AtomicInteger

/** The pixels of a picture, 0xAARRGGBB, in any storage; on phones a Bitmap. */
interface Raster {
    val width: Int
    val height: Int

    /** Copies [count] rows from [row] on into [argb], which has room for them. */
    fun read(row: Int, count: Int, argb: IntArray)

    /** Copies rows from [argb] into the picture. Any thread may call it. */
    fun write(row: Int, count: Int, argb: IntArray)

    /** Frees the memory at once; the raster must not be used afterwards. */
    fun release()
}

/** The platform's operations on pictures. */
interface Platform {
    fun raster(width: Int, height: Int): Raster

    /** Writes a JPEG of a quality of 0 to 100. */
    fun jpeg(raster: Raster, quality: Int, to: OutputStream)

    fun fromJpeg(file: ByteArray): Raster

    fun milliseconds(): Long
}

enum class Step { READING, ENCODING, DECODING, MATCHING }

/** Called with the fraction that is done; returns whether to go on. */
typealias Progress = (Step, Double) -> Boolean

/** A picture, its `.plic` decoded, and a JPEG of as many bytes decoded. PSNR is null where nothing changed. */
class Comparison(
    val file: ByteArray,
    val decoded: Raster,
    val jpeg: Raster,
    val jpegBytes: Int,
    val encodeMs: Long,
    val decodeMs: Long,
    val psnr: Double?,
    val jpegPsnr: Double?,
)

/**
 * Encodes a picture, decodes the file, and makes the JPEG of at least as many bytes. Memory is as [Memory] counts it.
 *
 * Throws PlicException with STOPPED, or Cancelled, when [progress] returned false; pictures made so far are released.
 */
fun compare(engine: Engine, original: Raster, quality: Double, platform: Platform, progress: Progress): Comparison {
    val made = mutableListOf<Raster>()
    try {
        val start = platform.milliseconds()
        val rows = RasterRows(original) { progress(Step.ENCODING, 0.4 * it) }
        val file = engine.encode(original.width, original.height, 3, quality, rows)
        val middle = platform.milliseconds()
        val decoded = decode(engine, file, platform) { progress(Step.DECODING, 0.4 + 0.3 * it) }.also(made::add)
        val end = platform.milliseconds()
        var tries = 0
        val jpegQuality = jpegQualityOf(file.size) { tried ->
            if (!progress(Step.MATCHING, 0.7 + 0.03 * tries++)) throw Cancelled()
            Counter().also { platform.jpeg(original, tried, it) }.count
        }
        val jpegFile = ByteArrayOutputStream(file.size).also { platform.jpeg(original, jpegQuality, it) }.toByteArray()
        val jpeg = platform.fromJpeg(jpegFile).also(made::add)
        return Comparison(
            file, decoded, jpeg, jpegFile.size, middle - start, end - middle, psnrOf(original, decoded),
            psnrOf(original, jpeg),
        )
    } catch (failure: Throwable) {
        made.forEach(Raster::release)
        throw failure
    }
}

/** Decodes into a new picture, which is released when [progress], told the fraction done, returns false. */
fun decode(engine: Engine, file: ByteArray, platform: Platform, progress: (Double) -> Boolean): Raster {
    val info = Engine.inspect(file)
    val pixels = info.width.toLong() * info.height
    require(pixels <= Memory.PIXELS_TO_OPEN) { "${info.width} x ${info.height} pixels are too many to show" }
    val raster = platform.raster(info.width, info.height)
    val done = AtomicInteger()
    try {
        engine.decode(file, threads()) { first, count, strip ->
            val argb = IntArray(Memory.ROWS * info.width)
            val part = ByteArray(Memory.ROWS * info.width * info.components)
            for (top in 0 until count step Memory.ROWS) {
                val height = minOf(Memory.ROWS, count - top)
                val row = info.width * info.components
                strip.copyInto(part, 0, top * row, (top + height) * row)
                toArgb(part, height * info.width, info.components, argb)
                raster.write(first + top, height, argb)
            }
            progress(done.addAndGet(count) / info.height.toDouble())
        }
    } catch (failure: Throwable) {
        raster.release()
        throw failure
    }
    return raster
}

/** Rows of a picture for the encoder, read in strips. Transparent pixels are black. */
class RasterRows(private val raster: Raster, private val progress: (Double) -> Boolean) : RowSource {
    private val strip = IntArray(Memory.ROWS * raster.width)

    override fun row(index: Int, pixels: ByteArray): Boolean {
        if (index % Memory.ROWS == 0) {
            if (!progress(index / raster.height.toDouble())) return false
            raster.read(index, minOf(Memory.ROWS, raster.height - index), strip)
        }
        toRgb(strip, index % Memory.ROWS * raster.width, raster.width, pixels)
        return true
    }
}

/** Counts the bytes that are written, and drops them. */
private class Counter : OutputStream() {
    var count = 0

    override fun write(byte: Int) {
        count++
    }

    override fun write(bytes: ByteArray, from: Int, length: Int) {
        count += length
    }
}

/** PSNR in dB of two pictures of one size, null when they are equal. */
fun psnrOf(a: Raster, b: Raster): Double? {
    var sum = 0L
    val rows = Array(2) { IntArray(a.width) }
    for (y in 0 until a.height) {
        a.read(y, 1, rows[0])
        b.read(y, 1, rows[1])
        sum += squaredError(rows[0], rows[1], a.width)
    }
    return psnr(sum, a.width.toLong() * a.height)
}

/** The number of threads that decoding gains from; phones have few large cores. */
fun threads(): Int = Runtime.getRuntime().availableProcessors().coerceIn(1, 4)
