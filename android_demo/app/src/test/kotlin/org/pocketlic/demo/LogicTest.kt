package org.pocketlic.demo

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.math.abs
import kotlin.math.sqrt

class LogicTest {
    @Test
    fun pixelsGoThereAndBack() {
        val rgb = ByteArray(3 * 256) { (it * 7).toByte() }
        val argb = IntArray(256)
        toArgb(rgb, 256, 3, argb)
        assertEquals(0xFF00070E.toInt(), argb[0])
        val back = ByteArray(3 * 200)
        toRgb(argb, 50, 200, back)
        assertArrayEquals(rgb.copyOfRange(150, 750), back)
        toArgb(byteArrayOf(-1, 16), 2, 1, argb)
        assertEquals(listOf(-1, 0xFF101010.toInt()), argb.take(2))
    }

    @Test
    fun errorsAndRates() {
        val a = intArrayOf(0xFF0A0000.toInt(), 0xFF000000.toInt())
        val b = intArrayOf(0xFF000000.toInt(), 0xFF0003FF.toInt())
        assertEquals(100L + 9 + 255 * 255, squaredError(a, b, 2))
        assertEquals(100L, squaredError(a, b, 1))
        assertNull(psnr(0, 10))
        assertEquals(10 * Math.log10(255.0 * 255 * 6 / 100), psnr(100, 2)!!, 1e-9)
        assertEquals(0.5, bitsPerPixel(100, 40, 40), 0.0)
    }

    @Test
    fun sizes() {
        assertEquals(1, sampleSize(4000, 3000, 12_000_000))
        assertEquals(2, sampleSize(4001, 3000, 12_000_000))
        assertEquals(4, sampleSize(16000, 12000, 12_000_000))
        assertEquals(Pair(1080, 810), fit(1080, 1920, 4000, 3000))
        assertEquals(Pair(40, 30), fit(1080, 1920, 40, 30))
        assertEquals(Pair(100, 1), fit(100, 100, 60000, 20))
    }

    /** The table of the EXIF standard, tag 0x0112. */
    @Test
    fun orientations() {
        val expected = mapOf(
            1 to Turn(0, false), 2 to Turn(0, true), 3 to Turn(180, false), 4 to Turn(180, true),
            5 to Turn(270, true), 6 to Turn(90, false), 7 to Turn(90, true), 8 to Turn(270, false),
        )
        for ((tag, turn) in expected) assertEquals(turn, turnOf(tag))
        assertEquals(Turn(0, false), turnOf(0))
    }

    @Test
    fun jpegOfAtLeastAsManyBytes() {
        var calls = 0
        fun sizeOf(quality: Int): Int = (100 + 10 * quality).also { calls++ }
        assertEquals(46, jpegQualityOf(551, ::sizeOf))
        assertTrue(calls <= 7)
        assertEquals(0, jpegQualityOf(5, ::sizeOf))
        assertEquals(100, jpegQualityOf(1100, ::sizeOf))
        assertEquals(100, jpegQualityOf(5000, ::sizeOf))
    }

    /** Every step with 12 megapixels, portrait and landscape, on phones with many cores. MemoryTest measures it. */
    @Test
    fun twelveMegapixelsFitIntoMemory() {
        val left = Memory.APP - Memory.PLATFORM
        for ((width, height) in listOf(Pair(4032, 3024), Pair(3024, 4032), Pair(4080, 3072), Pair(4608, 2592))) {
            // Half a byte a pixel is more than any photo takes at the app's qualities.
            val steps = Memory.steps(width, height, 8, width * height / 2L)
            for ((step, bytes) in steps) assertTrue("$step of $width x $height: $bytes", bytes <= left)
        }
        val size = sqrt(Memory.PIXELS_TO_OPEN.toDouble()).toInt()
        assertTrue(Memory.opening(size, size, 8, Memory.PIXELS) <= left)
        assertEquals(3, Memory.decoders(1920, 4000, 4))
        assertEquals(2, Memory.decoders(4032, 3024, 8))
        assertEquals(1, Memory.decoders(300, 200, 8))
        assertEquals(2, Memory.decoders(12_000, 1000, 8))
        assertEquals(Memory.DECODING, Memory.decoding(4032, 3024))
        assertEquals(Memory.CALL, Memory.decoding(10_000, 2500))
        assertTrue(Memory.needed(10_000, 2500, 1) <= Memory.CALL)
    }

    @Test
    fun whatCanBePressed() {
        assertEquals(Buttons(true, false, false, false), buttonsOf(false, false, Shown.NOTHING))
        // The button cancels.
        assertEquals(Buttons(false, true, false, false), buttonsOf(true, true, Shown.NOTHING))
        // Cancelled, or failed: the same picture can be encoded again.
        assertEquals(Buttons(true, true, false, false), buttonsOf(false, true, Shown.NOTHING))
        assertEquals(Buttons(true, true, true, true), buttonsOf(false, true, Shown.PHOTO))
        assertEquals(Buttons(true, false, true, false), buttonsOf(false, true, Shown.FILE))
    }

    @Test
    fun whatAScreenBeginsWith() {
        assertEquals(Begin.READ_INTENT, beginOf(work = false, source = false, fresh = true))
        assertEquals("rotated", Begin.TAKE_OVER, beginOf(work = true, source = true, fresh = false))
        assertEquals("the process died", Begin.LOAD, beginOf(work = false, source = true, fresh = false))
        assertEquals("the same, nothing picked", Begin.NOTHING, beginOf(work = false, source = false, fresh = false))
    }

    /** The levels of ComponentCallbacks2: running critical, hidden, background, complete. */
    @Test
    fun picturesAreGivenUpInTheBackgroundOnly() {
        assertEquals(listOf(false, false, true, true), listOf(15, 20, 40, 80).map { givesUpPictures(it, running = false) })
        assertEquals(false, givesUpPictures(80, running = true))
    }

    @Test
    fun namesOfFiles() {
        assertEquals("IMG_0001.plic", plicNameOf("primary:DCIM/IMG_0001.JPG"))
        assertEquals("picture.plic", plicNameOf(null))
        assertEquals("picture.plic", plicNameOf("../.."))
        assertEquals("a".repeat(40) + ".plic", plicNameOf("a".repeat(300) + ".png"))
    }

    @Test
    fun statisticsAreNumPys() {
        val s = Statistics(listOf(4.0, 1.0, 3.0, 2.0, 10.0))
        assertEquals(listOf(4.0, 1.0, 3.0, 2.0, 10.0), s.samples)
        assertEquals(4.0, s.average, 0.0)
        assertEquals(listOf(3.0, 7.6, 9.76), listOf(50.0, 90.0, 99.0).map(s::percentile))
        assertTrue(abs(s.deviation - 3.5355) < 1e-9)
        assertEquals(0.0, Statistics(listOf(5.0)).deviation, 0.0)
        assertEquals(5.0, Statistics(listOf(5.0)).percentile(99.0), 0.0)
    }

    @Test
    fun intents() {
        val view = "android.intent.action.VIEW"
        val send = "android.intent.action.SEND"
        assertEquals(Request.Nothing, requestOf("android.intent.action.MAIN", null, null, null, null))
        assertEquals(Request.Open("content://a/1"), requestOf(view, PLIC_TYPE, "content://a/1", null, null))
        assertEquals(
            Request.Open("content://a/1"),
            requestOf(view, "application/octet-stream", "content://a/1", null, "photo.PLIC"),
        )
        assertEquals(Request.Encode("content://a/2"), requestOf(send, "image/heic", null, "content://a/2", "p.heic"))
        assertTrue(requestOf(view, "text/plain", "content://a/1", null, "notes.txt") is Request.Refuse)
        assertTrue(requestOf(view, PLIC_TYPE, "https://example.org/x.plic", null, "x.plic") is Request.Refuse)
        assertTrue(requestOf(send, PLIC_TYPE, "content://a/1", null, "x.plic") is Request.Refuse)
    }

    @Test
    fun benchmarkExtras() {
        val own = "/Android/data/org.pocketlic.demo/files"
        assertEquals(BenchmarkRequest(), benchmarkRequestOf(emptyMap(), own))
        // The extras that the profiler starts it with.
        val asked = mapOf("runs" to 7, "threads" to 2, "out" to "/sdcard$own/benchmark.json")
        assertEquals(BenchmarkRequest(runs = 7, threads = 2, out = "benchmark.json"), benchmarkRequestOf(asked, own))
        assertEquals(12.5, benchmarkRequestOf(mapOf("quality" to "12.5"), own).quality, 0.0)
        for (bad in listOf(
            mapOf("runs" to 0), mapOf("runs" to "many"), mapOf("quality" to 101), mapOf("width" to 9000),
            mapOf("out" to "/data/local/tmp/benchmark.json"), mapOf("out" to "/sdcard$own/../secret"),
            mapOf("out" to "/sdcard$own/.."), mapOf("out" to "benchmark.json"), mapOf("out" to "/sdcard$own/"),
        )) assertThrows("$bad", IllegalArgumentException::class.java) { benchmarkRequestOf(bad, own) }
    }

    @Test
    fun vectorsAreFoundByTheirModel() {
        val json = """{"version": 1, "models": {
            "a": {"id": "00", "vectors": []},
            "b": {"id": "ff", "vectors": [{"name": "one", "symbols": "12", "pixels": "34", "width": 1}]}}}"""
        assertEquals(Pair("b", listOf(Vector("one", Hashes("12", "34")))), vectorsOf(json, "ff"))
        assertThrows(IllegalArgumentException::class.java) { vectorsOf(json, "0123") }
    }

    @Test
    fun onlyExactDelegatesAreChosen() {
        fun delegate(name: String) = Delegate(name, "CPU", 0) { NetworkRunner { _, _, _, _, _ -> false } }
        val all = listOf("npu", "cpu", "other").map(::delegate)
        val verdicts = mapOf(
            "npu" to Verdict.Different(listOf("odd"), 31),
            "cpu" to Verdict.Exact(31),
            "other" to Verdict.Exact(31),
        )
        assertEquals("cpu", choose(all, verdicts)?.name)
        assertNull(choose(all, mapOf("npu" to Verdict.Unavailable("no such unit"))))
        assertNull(choose(all, emptyMap()))
    }
}
