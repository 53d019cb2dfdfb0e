package org.pocketlic.demo

/**
 * The memory for comparing a photo with its codings, in bytes; no other place has these numbers.
 *
 * The native core gets its limits as arguments and keeps to them. Pictures take 4 bytes a pixel, outside Java's heap.
 */
object Memory {
    /** The largest picture in pixels; larger photos are shrunk by a power of two. */
    const val PIXELS = 12_600_000L

    /** The largest `.plic` file that is shown, in pixels: no other picture is in memory then. */
    const val PIXELS_TO_OPEN = 2 * PIXELS

    /** Limit of the whole app with a photo of 12 megapixels. */
    const val APP = 256L shl 20

    /** Part of it for Android's share of the process, the app's code, its views and the open model: an estimate. */
    const val PLATFORM = 48L shl 20

    /** Limit of one call of the native core; encoding 12 megapixels takes 52 MB. */
    const val CALL = 96L shl 20

    /** Limit of all threads that decode one picture; for a panorama, a single thread may take [CALL]. */
    const val DECODING = 72L shl 20

    /** Bytes that a decoding thread's tiles take per pixel of the picture's width. */
    const val PER_COLUMN = 8400L

    /** Largest number of rows in a strip of the decoder. */
    const val STRIP = 512

    /** Rows that are converted at a time between Android's pixels and the codec's. */
    const val ROWS = 64

    fun raster(width: Int, height: Int) = 4L * width * height

    /** The number of threads to decode a picture on, of those available. */
    fun decoders(width: Int, height: Int, threads: Int): Int {
        val strips = (height + STRIP - 1) / STRIP
        return minOf(threads, strips, (DECODING / (PER_COLUMN * width)).toInt()).coerceAtLeast(1)
    }

    /** Limit of each of so many threads. */
    fun eachOf(decoders: Int, width: Int) = if (PER_COLUMN * width > DECODING) CALL else DECODING / decoders

    /** Memory of each step of [compare] when the `.plic` file has [file] bytes. */
    fun steps(width: Int, height: Int, threads: Int, file: Long): Map<String, Long> {
        val raster = raster(width, height)
        val decoders = decoders(width, height, threads)
        // Java's arrays: the decoder's strip, and the rows that are being converted.
        val rows = 3L * width * STRIP + 7L * width * ROWS
        return mapOf(
            "turning" to 2 * raster,
            "encoding" to raster + CALL + rows + 2 * file,
            "decoding" to 2 * raster + decoders * (eachOf(decoders, width) + rows) + file,
            "jpeg" to 3 * raster + 4 * file,
        )
    }

    /** Memory to show a `.plic` file of [file] bytes. */
    fun opening(width: Int, height: Int, threads: Int, file: Long): Long =
        steps(width, height, threads, file).getValue("decoding") - raster(width, height)
}
