package org.pocketlic.demo

/**
 * What the app takes to compare a photo with its codings: the one place that has these numbers, all in bytes.
 *
 * The native core keeps to its limits, which are passed to it; pictures are 4 bytes a pixel, outside Java's heap.
 */
object Memory {
    /** The largest picture that is taken as it is; photos that are larger are shrunk by a power of two. */
    const val PIXELS = 12_600_000L

    /** The largest `.plic` file that is shown: it comes alone. */
    const val PIXELS_TO_OPEN = 2 * PIXELS

    /** What the whole app may take with a photo of 12 megapixels. */
    const val APP = 256L shl 20

    /** Of that, for Android's own part in a process, the app's code, its views and the open model: an estimate. */
    const val PLATFORM = 48L shl 20

    /** What one call of the native core may take; 12 megapixels need 52 MB to be encoded. */
    const val CALL = 96L shl 20

    /** What all threads that decode one picture may take; for a panorama, one alone may take [CALL]. */
    const val DECODING = 72L shl 20

    /** A decoding thread's tiles take as many bytes as the picture is wide. */
    const val PER_COLUMN = 8400L

    /** Rows that the decoder hands on at a time, at most. */
    const val STRIP = 512

    /** Rows that are converted between Android's pixels and the codec's at a time. */
    const val ROWS = 64

    fun raster(width: Int, height: Int) = 4L * width * height

    /** The number of threads to decode a picture on, of those that are there. */
    fun decoders(width: Int, height: Int, threads: Int): Int {
        val strips = (height + STRIP - 1) / STRIP
        return minOf(threads, strips, (DECODING / (PER_COLUMN * width)).toInt()).coerceAtLeast(1)
    }

    /** What each of so many threads may take. */
    fun eachOf(decoders: Int, width: Int) = if (PER_COLUMN * width > DECODING) CALL else DECODING / decoders

    /** What each step of [compare] takes when the `.plic` file has [file] bytes. */
    fun steps(width: Int, height: Int, threads: Int, file: Long): Map<String, Long> {
        val raster = raster(width, height)
        val decoders = decoders(width, height, threads)
        // Java's arrays: what the decoder hands on, and the rows that are being converted.
        val rows = 3L * width * STRIP + 7L * width * ROWS
        return mapOf(
            "turning" to 2 * raster,
            "encoding" to raster + CALL + rows + 2 * file,
            "decoding" to 2 * raster + decoders * (eachOf(decoders, width) + rows) + file,
            "jpeg" to 3 * raster + 4 * file,
        )
    }

    /** What showing a `.plic` file of [file] bytes takes. */
    fun opening(width: Int, height: Int, threads: Int, file: Long): Long =
        steps(width, height, threads, file).getValue("decoding") - raster(width, height)
}
