package org.pocketlic.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ColorSpace
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import android.provider.OpenableColumns
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.util.concurrent.atomic.AtomicInteger

/** The largest picture that is taken as it is; larger ones are shrunk by a power of two. */
const val MOST_PIXELS = 12_600_000L

/** A picture that the platform has decoded, upright, and by how much it was shrunk. */
class Photo(val bitmap: Bitmap, val shrunkBy: Int)

/** Where a picture's bytes come from: a content or file URI, or asset:/NAME. */
fun openUri(context: Context, uri: Uri): InputStream =
    if (uri.scheme == "asset") {
        context.assets.open(uri.path.orEmpty().removePrefix("/"))
    } else {
        context.contentResolver.openInputStream(uri) ?: throw FileNotFoundException("$uri")
    }

/** The name that a file goes by in other apps, if they say. */
fun nameOf(context: Context, uri: Uri): String? {
    if (uri.scheme != "content") return uri.lastPathSegment
    return try {
        context.contentResolver.query(uri, arrayOf(OpenableColumns.DISPLAY_NAME), null, null, null)?.use {
            if (it.moveToFirst()) it.getString(0) else null
        }
    } catch (_: RuntimeException) { // other apps' providers throw what they like
        null
    }
}

/**
 * Reads a picture in sRGB, turned as its EXIF data says; [most] is what it may have of pixels.
 *
 * Throws IOException when it cannot be read, SecurityException when the right to do so is gone, and
 * IllegalArgumentException when the platform knows no such format.
 */
fun loadPhoto(context: Context, uri: Uri, most: Long = MOST_PIXELS): Photo {
    val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
    openUri(context, uri).use { BitmapFactory.decodeStream(it, null, bounds) }
    require(bounds.outWidth > 0 && bounds.outHeight > 0) { "not a picture" }
    val sample = sampleSize(bounds.outWidth, bounds.outHeight, most)
    val options = BitmapFactory.Options().apply {
        inSampleSize = sample
        inPreferredConfig = Bitmap.Config.ARGB_8888
        inPreferredColorSpace = ColorSpace.get(ColorSpace.Named.SRGB)
    }
    val bitmap = openUri(context, uri).use { BitmapFactory.decodeStream(it, null, options) }
    requireNotNull(bitmap) { "not a picture" }
    val orientation = try {
        openUri(context, uri).use {
            ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
        }
    } catch (_: IOException) { // a format without EXIF
        ExifInterface.ORIENTATION_NORMAL
    }
    return Photo(upright(bitmap, turnOf(orientation)), sample)
}

private fun upright(bitmap: Bitmap, turn: Turn): Bitmap {
    if (turn == Turn(0, false)) return bitmap
    val matrix = Matrix()
    if (turn.mirrored) matrix.postScale(-1f, 1f)
    matrix.postRotate(turn.degrees.toFloat())
    val turned = Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, matrix, false)
    if (turned !== bitmap) bitmap.recycle()
    return turned
}

/** Rows of a bitmap for the encoder, fetched some at a time. Transparent pixels are black. */
class BitmapRows(private val bitmap: Bitmap, private val progress: (Double) -> Boolean) : RowSource {
    private val strip = IntArray(ROWS * bitmap.width)

    override fun row(index: Int, pixels: ByteArray): Boolean {
        if (index % ROWS == 0) {
            if (!progress(index / bitmap.height.toDouble())) return false
            bitmap.getPixels(strip, 0, bitmap.width, 0, index, bitmap.width, minOf(ROWS, bitmap.height - index))
        }
        toRgb(strip, index % ROWS * bitmap.width, bitmap.width, pixels)
        return true
    }

    private companion object {
        const val ROWS = 64
    }
}

/** Decodes into a new bitmap. [progress] is told the share that is done. */
fun decodeToBitmap(engine: Engine, file: ByteArray, progress: (Double) -> Boolean): Bitmap {
    val info = Engine.inspect(file)
    val pixels = info.width.toLong() * info.height
    require(pixels <= 2 * MOST_PIXELS) { "${info.width} x ${info.height} pixels are too many to show" }
    val bitmap = Bitmap.createBitmap(info.width, info.height, Bitmap.Config.ARGB_8888)
    val done = AtomicInteger()
    engine.decode(file, threads()) { first, count, pixels ->
        val rows = 64
        val argb = IntArray(rows * info.width)
        val part = ByteArray(rows * info.width * info.components)
        for (top in 0 until count step rows) {
            val height = minOf(rows, count - top)
            pixels.copyInto(part, 0, top * info.width * info.components, (top + height) * info.width * info.components)
            toArgb(part, height * info.width, info.components, argb)
            synchronized(bitmap) { bitmap.setPixels(argb, 0, info.width, 0, first + top, info.width, height) }
        }
        progress(done.addAndGet(count) / info.height.toDouble())
    }
    return bitmap
}

/** PSNR in dB of two bitmaps of one size, null when they are equal. */
fun psnrOf(a: Bitmap, b: Bitmap): Double? {
    var sum = 0L
    val rows = Array(2) { IntArray(a.width) }
    for (y in 0 until a.height) {
        a.getPixels(rows[0], 0, a.width, 0, y, a.width, 1)
        b.getPixels(rows[1], 0, a.width, 0, y, a.width, 1)
        sum += squaredError(rows[0], rows[1], a.width)
    }
    return psnr(sum, a.width.toLong() * a.height)
}
