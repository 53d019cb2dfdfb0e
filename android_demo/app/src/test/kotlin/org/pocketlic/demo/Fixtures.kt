package org.pocketlic.demo

import org.junit.Assume.assumeTrue
import java.io.File
import java.io.OutputStream
import java.nio.ByteBuffer

// Shared by the tests that need the JNI library.

private val root = System.getProperty("pocketlic.root")?.let(::File)
val vectors get() = File(root, "tests/vectors")
val emulated = System.getProperty("pocketlic.emulated") != null

/**
 * Skips a test when there is no library: it has to be on java.library.path, and the property pocketlic.root has to name
 * the repository. With `pocketlic.emulated`, tests leave out parts that take minutes under emulation.
 */
fun assumeLibrary() = assumeTrue("no JNI library", root != null)

fun weights(name: String): ByteArray =
    listOf(File(vectors, "$name.safetensors"), File(root, "models/weights/pocketlic-$name.safetensors"))
        .first { it.exists() }.readBytes()

/** Smooth colours with some texture. */
fun row(width: Int, y: Int, rgb: ByteArray) {
    for (x in 0 until width) {
        rgb[3 * x] = (x / 3 + y / 5).toByte()
        rgb[3 * x + 1] = (128 + 80 * Math.sin(x * 0.05) * Math.cos(y * 0.03)).toInt().toByte()
        rgb[3 * x + 2] = (100 + (x * y / 64) % 60).toByte()
    }
}

/** Pixels outside Java's heap, as a Bitmap has them. */
class BufferRaster(override val width: Int, override val height: Int) : Raster {
    private val pixels = ByteBuffer.allocateDirect(4 * width * height).asIntBuffer()

    override fun read(row: Int, count: Int, argb: IntArray) {
        pixels.duplicate().apply { position(row * width) }.get(argb, 0, count * width)
    }

    override fun write(row: Int, count: Int, argb: IntArray) {
        pixels.duplicate().apply { position(row * width) }.put(argb, 0, count * width)
    }

    override fun release() = Unit
}

/** A stand-in for Android's JPEG: a number of bytes that grows with the quality, and the picture without blue. */
class TestPlatform(private val original: Raster) : Platform {
    var released = 0

    override fun raster(width: Int, height: Int): Raster {
        val made = BufferRaster(width, height)
        return object : Raster by made {
            override fun release() {
                released++
            }
        }
    }

    override fun jpeg(raster: Raster, quality: Int, to: OutputStream) =
        to.write(ByteArray(original.width * original.height / 1000 * (quality + 1)))

    override fun fromJpeg(file: ByteArray): Raster {
        val made = raster(original.width, original.height)
        val row = IntArray(original.width)
        for (y in 0 until original.height) {
            original.read(y, 1, row)
            for (x in row.indices) row[x] = row[x] and -0x100
            made.write(y, 1, row)
        }
        return made
    }

    override fun milliseconds() = System.nanoTime() / 1_000_000
}

fun photo(width: Int, height: Int): Raster {
    val photo = BufferRaster(width, height)
    val rgb = ByteArray(3 * width)
    val argb = IntArray(width)
    for (y in 0 until height) {
        row(width, y, rgb)
        toArgb(rgb, width, 3, argb)
        photo.write(y, 1, argb)
    }
    return photo
}
