package org.pocketlic.demo

import android.content.Context
import android.net.Uri
import android.text.format.Formatter

/** The result for a picture or a file. [file]: the `.plic`. [original] is null for a `.plic` from elsewhere. */
class Outcome(
    val original: BitmapRaster?,
    val decoded: BitmapRaster,
    val jpeg: BitmapRaster?,
    val file: ByteArray,
    val text: String,
) {
    /** Frees the pictures' memory now, as the garbage collector would be too late. */
    fun release() = listOfNotNull(original, decoded, jpeg).forEach(Raster::release)
}

/** Decodes [uri] if it is a `.plic` file, else encodes it at [quality] and decodes that. Throws as [loadPhoto] does. */
fun outcomeOf(context: Context, work: Work<Outcome>, uri: Uri, quality: Int): Outcome {
    val progress = { step: Step, share: Double -> work.report(textOf(step), share) }
    progress(Step.READING, 0.0)
    val head = openUri(context, uri).use { input -> ByteArray(Engine.MAGIC.size).also { input.read(it) } }
    return if (head.contentEquals(Engine.MAGIC)) {
        fileOutcome(context, uri, progress)
    } else {
        photoOutcome(context, uri, quality, progress)
    }
}

private fun textOf(step: Step): Int = when (step) {
    Step.READING -> R.string.loading
    Step.ENCODING -> R.string.encoding
    Step.DECODING -> R.string.decoding
    Step.MATCHING -> R.string.matching
}

private fun fileOutcome(context: Context, uri: Uri, progress: Progress): Outcome {
    val file = openUri(context, uri).use { it.readBytes() }
    val info = Engine.inspect(file)
    val start = AndroidPlatform.milliseconds()
    val decoded = openChosenEngine(context, info.model).use { engine ->
        decode(engine, file, AndroidPlatform) { progress(Step.DECODING, it) }
    }
    val text = context.getString(
        R.string.opened, size(context, file.size), bitsPerPixel(file.size, info.width, info.height), info.width,
        info.height, "${info.quality}", AndroidPlatform.milliseconds() - start,
    )
    return Outcome(null, decoded as BitmapRaster, null, file, text)
}

private fun photoOutcome(context: Context, uri: Uri, quality: Int, progress: Progress): Outcome {
    val photo = loadPhoto(context, uri)
    val original = photo.raster
    val made = try {
        openChosenEngine(context).use { compare(it, original, quality.toDouble(), AndroidPlatform, progress) }
    } catch (failure: Throwable) {
        original.release()
        throw failure
    }
    val (width, height) = Pair(original.width, original.height)
    val lines = mutableListOf(
        context.getString(
            R.string.result, size(context, made.file.size), bitsPerPixel(made.file.size, width, height), width, height,
            made.encodeMs, made.decodeMs, decibel(context, made.psnr),
        ),
        context.getString(R.string.result_jpeg, size(context, made.jpegBytes), decibel(context, made.jpegPsnr)),
    )
    if (photo.shrunkBy > 1) lines += context.getString(R.string.shrunk, photo.shrunkBy)
    return Outcome(
        original, made.decoded as BitmapRaster, made.jpeg as BitmapRaster, made.file, lines.joinToString("\n"),
    )
}

private fun size(context: Context, bytes: Int) = Formatter.formatShortFileSize(context, bytes.toLong())

private fun decibel(context: Context, psnr: Double?) =
    psnr?.let { context.getString(R.string.decibel, it) } ?: context.getString(R.string.lossless)
