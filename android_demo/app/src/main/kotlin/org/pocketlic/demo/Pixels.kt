package org.pocketlic.demo

import kotlin.math.ceil
import kotlin.math.log10
import kotlin.math.sqrt

/** Converts [count] of the decoder's pixels, of 1 or 3 [components], to Android's 0xAARRGGBB. */
fun toArgb(pixels: ByteArray, count: Int, components: Int, argb: IntArray) {
    var at = 0
    for (i in 0 until count) {
        val red = pixels[at].toInt() and 255
        val green = if (components == 3) pixels[at + 1].toInt() and 255 else red
        val blue = if (components == 3) pixels[at + 2].toInt() and 255 else red
        argb[i] = -0x1000000 or (red shl 16) or (green shl 8) or blue
        at += components
    }
}

/** RGB bytes of [count] pixels of [argb] from [start] on. */
fun toRgb(argb: IntArray, start: Int, count: Int, rgb: ByteArray) {
    var at = 0
    for (i in start until start + count) {
        rgb[at++] = (argb[i] shr 16).toByte()
        rgb[at++] = (argb[i] shr 8).toByte()
        rgb[at++] = argb[i].toByte()
    }
}

/** Sum of squared differences of the colours of two runs of pixels. */
fun squaredError(a: IntArray, b: IntArray, count: Int): Long {
    var sum = 0L
    for (i in 0 until count) {
        for (shift in intArrayOf(0, 8, 16)) {
            val difference = (a[i] shr shift and 255) - (b[i] shr shift and 255)
            sum += difference * difference
        }
    }
    return sum
}

/** PSNR in dB of pictures of [pixels] RGB pixels, null when they are equal. */
fun psnr(squaredError: Long, pixels: Long): Double? =
    if (squaredError == 0L) null else 10 * log10(255.0 * 255.0 * 3 * pixels / squaredError)

fun bitsPerPixel(bytes: Int, width: Int, height: Int): Double = 8.0 * bytes / (width.toDouble() * height)

/** The least power of two by which the platform's decoders must shrink a picture to [most] pixels. */
fun sampleSize(width: Int, height: Int, most: Long): Int {
    var sample = 1
    while (ceil(width / sample.toDouble()) * ceil(height / sample.toDouble()) > most) sample *= 2
    return sample
}

/** The largest size within [width] x [height] with the proportions of a picture. */
fun fit(width: Int, height: Int, pictureWidth: Int, pictureHeight: Int): Pair<Int, Int> {
    val scale = minOf(1.0, width / pictureWidth.toDouble(), height / pictureHeight.toDouble())
    return Pair(
        Math.round(pictureWidth * scale).toInt().coerceAtLeast(1),
        Math.round(pictureHeight * scale).toInt().coerceAtLeast(1),
    )
}

/** The transform for an EXIF orientation: mirror first, then rotate clockwise. */
data class Turn(val degrees: Int, val mirrored: Boolean)

fun turnOf(exifOrientation: Int): Turn =
    when (exifOrientation) {
        2 -> Turn(0, true)
        3 -> Turn(180, false)
        4 -> Turn(180, true)
        5 -> Turn(270, true)
        6 -> Turn(90, false)
        7 -> Turn(90, true)
        8 -> Turn(270, false)
        else -> Turn(0, false)
    }

/**
 * The least quality of 0 to 100 whose JPEG has at least [bytes] bytes, or 100 if none has.
 *
 * [sizeOf] gives the size of the JPEG at a quality; sizes must grow with it.
 */
fun jpegQualityOf(bytes: Int, sizeOf: (Int) -> Int): Int {
    var low = 0
    var high = 100
    while (low < high) {
        val middle = (low + high) / 2
        if (sizeOf(middle) >= bytes) high = middle else low = middle + 1
    }
    return low
}

/** Statistics of times in milliseconds, as in profiles. */
class Statistics(samples: List<Double>) {
    val samples = samples.map(::rounded)
    private val sorted = samples.sorted()
    val average = rounded(samples.average())
    val minimum = rounded(sorted.first())
    val maximum = rounded(sorted.last())

    /** Sample standard deviation; 0 for a single time. */
    val deviation = samples.average().let { mean ->
        rounded(sqrt(samples.sumOf { (it - mean) * (it - mean) } / (samples.size - 1).coerceAtLeast(1)))
    }

    /** Percentile, linear between neighbours, as in NumPy. */
    fun percentile(percent: Double): Double {
        val at = (sorted.size - 1) * percent / 100
        val low = sorted[at.toInt()]
        val high = sorted[minOf(at.toInt() + 1, sorted.size - 1)]
        return rounded(low + (high - low) * (at - at.toInt()))
    }
}

internal fun rounded(milliseconds: Double): Double = Math.round(milliseconds * 1e4) / 1e4
