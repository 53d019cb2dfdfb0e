package org.pocketlic.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ColorSpace
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import android.os.SystemClock
import android.provider.OpenableColumns
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream

/** A picture decoded by the platform, upright, and the factor it was shrunk by. */
class Photo(val raster: BitmapRaster, val shrunkBy: Int)

/** Opens a picture's bytes: a content or file URI, or asset:/NAME. */
fun openUri(context: Context, uri: Uri): InputStream =
    if (uri.scheme == "asset") {
        context.assets.open(uri.path.orEmpty().removePrefix("/"))
    } else {
        context.contentResolver.openInputStream(uri) ?: throw FileNotFoundException("$uri")
    }

/** The display name that the other app gives for a file, if any. */
fun nameOf(context: Context, uri: Uri): String? {
    if (uri.scheme != "content") return uri.lastPathSegment
    return try {
        context.contentResolver.query(uri, arrayOf(OpenableColumns.DISPLAY_NAME), null, null, null)?.use {
            if (it.moveToFirst()) it.getString(0) else null
        }
    } catch (_: RuntimeException) { // other apps' providers may throw anything
        null
    }
}

/**
 * Reads a picture in sRGB, with its EXIF orientation applied. [most]: the largest number of pixels.
 *
 * Throws IOException when it cannot be read, SecurityException when access was withdrawn, and
 * IllegalArgumentException when the platform does not know the format.
 */
fun loadPhoto(context: Context, uri: Uri, most: Long = Memory.PIXELS): Photo {
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
    return Photo(BitmapRaster(upright(bitmap, turnOf(orientation))), sample)
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

/** A bitmap as a [Raster]. */
class BitmapRaster(val bitmap: Bitmap) : Raster {
    override val width get() = bitmap.width
    override val height get() = bitmap.height

    override fun read(row: Int, count: Int, argb: IntArray) = bitmap.getPixels(argb, 0, width, 0, row, width, count)

    override fun write(row: Int, count: Int, argb: IntArray) =
        synchronized(bitmap) { bitmap.setPixels(argb, 0, width, 0, row, width, count) }

    override fun release() = bitmap.recycle()
}

object AndroidPlatform : Platform {
    override fun raster(width: Int, height: Int): Raster =
        BitmapRaster(Bitmap.createBitmap(width, height, Bitmap.Config.ARGB_8888))

    override fun jpeg(raster: Raster, quality: Int, to: OutputStream) {
        (raster as BitmapRaster).bitmap.compress(Bitmap.CompressFormat.JPEG, quality, to)
    }

    override fun fromJpeg(file: ByteArray): Raster = BitmapRaster(BitmapFactory.decodeByteArray(file, 0, file.size))

    override fun milliseconds() = SystemClock.elapsedRealtime()
}
