package org.pocketlic.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.net.Uri
import android.os.SystemClock
import android.text.format.Formatter
import java.io.ByteArrayOutputStream

/** What came of a picture or a file: [file] is the `.plic`; without [original] it came from elsewhere. */
class Outcome(
    val original: Bitmap?,
    val decoded: Bitmap,
    val jpeg: Bitmap?,
    val file: ByteArray,
    val text: String,
)

/** Decodes [uri] if it is a `.plic` file, else encodes it at [quality] and decodes that. Throws as [loadPhoto] does. */
fun outcomeOf(context: Context, work: Work<Outcome>, uri: Uri, quality: Int): Outcome {
    work.report(R.string.loading, 0.0)
    val head = openUri(context, uri).use { input -> ByteArray(Engine.MAGIC.size).also { input.read(it) } }
    return openChosenEngine(context).use { engine ->
        if (head.contentEquals(Engine.MAGIC)) {
            fileOutcome(context, work, uri, engine)
        } else {
            photoOutcome(context, work, uri, engine, quality)
        }
    }
}

private fun fileOutcome(context: Context, work: Work<Outcome>, uri: Uri, engine: Engine): Outcome {
    val file = openUri(context, uri).use { it.readBytes() }
    val info = Engine.inspect(file)
    val start = SystemClock.elapsedRealtime()
    val decoded = decodeToBitmap(engine, file) { work.report(R.string.decoding, it) }
    val text = context.getString(
        R.string.opened, size(context, file), bitsPerPixel(file.size, info.width, info.height), info.width, info.height,
        "${info.quality}", SystemClock.elapsedRealtime() - start,
    )
    return Outcome(null, decoded, null, file, text)
}

private fun photoOutcome(
    context: Context, work: Work<Outcome>, uri: Uri, engine: Engine, quality: Int,
): Outcome {
    val photo = loadPhoto(context, uri)
    val original = photo.bitmap
    val (width, height) = Pair(original.width, original.height)
    val start = SystemClock.elapsedRealtime()
    val rows = BitmapRows(original) { work.report(R.string.encoding, 0.4 * it) }
    val file = engine.encode(width, height, 3, quality.toDouble(), rows)
    val middle = SystemClock.elapsedRealtime()
    val decoded = decodeToBitmap(engine, file) { work.report(R.string.decoding, 0.4 + 0.3 * it) }
    val end = SystemClock.elapsedRealtime()
    var tries = 0
    val jpeg = jpegOfSize(file.size) { jpegQuality ->
        if (!work.report(R.string.matching, 0.7 + 0.03 * tries++)) throw Cancelled()
        val out = ByteArrayOutputStream()
        original.compress(Bitmap.CompressFormat.JPEG, jpegQuality, out)
        out.toByteArray()
    }
    val other = BitmapFactory.decodeByteArray(jpeg, 0, jpeg.size)
    val lines = mutableListOf(
        context.getString(
            R.string.result, size(context, file), bitsPerPixel(file.size, width, height), width, height,
            middle - start, end - middle, decibel(context, psnrOf(original, decoded)),
        ),
        context.getString(R.string.result_jpeg, size(context, jpeg), decibel(context, psnrOf(original, other))),
    )
    if (photo.shrunkBy > 1) lines += context.getString(R.string.shrunk, photo.shrunkBy)
    return Outcome(original, decoded, other, file, lines.joinToString("\n"))
}

private fun size(context: Context, file: ByteArray) = Formatter.formatShortFileSize(context, file.size.toLong())

private fun decibel(context: Context, psnr: Double?) =
    psnr?.let { context.getString(R.string.decibel, it) } ?: context.getString(R.string.lossless)
