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
    const val CALL = 108L shl 20

    /** Limit of decoding one picture on all threads; a panorama may take [CALL]. */
    const val DECODING = 72L shl 20

    /** Largest number of rows that a sink gets at a time. */
    const val STRIP = 512

    /** Rows of pixels in a band of a file, and sides of the tiles that the core decodes. */
    const val BAND = 1024L

    /** Rows that are converted at a time between Android's pixels and the codec's. */
    const val ROWS = 64

    fun raster(width: Int, height: Int) = 4L * width * height

    /** What the core needs to decode a picture on so many threads: `decoding_memory` of codec/format.py. */
    fun needed(width: Int, height: Int, threads: Int): Long {
        val w = (width + 63L) / 64 * 64
        val h = (height + 63L) / 64 * 64
        val bands = (h + BAND - 1) / BAND
        return ((16L shl 20) + 128 * w) * threads + w * h / 16 + 2816 * w * minOf(bands, 2L + threads)
    }

    /** Limit of one call that decodes a picture; the core takes as many threads as it holds, at least one. */
    fun decoding(width: Int, height: Int) = if (needed(width, height, 1) > DECODING) CALL else DECODING

    /** The number of threads that a picture is decoded on, of those available: at most one for each tile. */
    fun decoders(width: Int, height: Int, threads: Int): Int {
        val tiles = ((width + BAND - 1) / BAND * ((height + BAND - 1) / BAND)).toInt()
        return (minOf(threads, tiles) downTo 2).firstOrNull { needed(width, height, it) <= decoding(width, height) } ?: 1
    }

    /** Memory of each step of [compare] when the `.plic` file has [file] bytes. */
    fun steps(width: Int, height: Int, threads: Int, file: Long): Map<String, Long> {
        val raster = raster(width, height)
        // Java's arrays: the sink's rows, and the rows that are being converted.
        val rows = 3L * width * STRIP + 7L * width * ROWS
        return mapOf(
            "turning" to 2 * raster,
            "encoding" to raster + CALL + rows + 2 * file,
            "decoding" to 2 * raster + minOf(decoding(width, height), needed(width, height, threads)) + rows + file,
            "jpeg" to 3 * raster + 4 * file,
        )
    }

    /** Memory to show a `.plic` file of [file] bytes. */
    fun opening(width: Int, height: Int, threads: Int, file: Long): Long =
        steps(width, height, threads, file).getValue("decoding") - raster(width, height)
}
