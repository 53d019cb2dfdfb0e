package org.pocketlic.demo

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Test
import java.io.File

/**
 * In a process of its own, whose memory is what counts. Large blocks must go back to the system when they are freed, as
 * Android's allocators see to; glibc needs MALLOC_MMAP_THRESHOLD_ for it.
 */
class MemoryTest {
    @Before
    fun aLibraryIsThere() = assumeLibrary()

    /** Bytes that the process has in memory, and the most it had since [resetPeak]; as Linux counts them. */
    private fun resident(what: String) = File("/proc/self/status").readLines().first { it.startsWith("$what:") }
        .filter(Char::isDigit).toLong() * 1024

    private fun resetPeak() = File("/proc/self/clear_refs").writeText("5")

    /** All that comparing 4032x3024 pixels takes: this process's memory, of which pictures and Java's heap are parts. */
    @Test
    fun twelveMegapixels() {
        assumeTrue("minutes under emulation", !emulated)
        val (width, height) = Pair(4032, 3024)
        Engine(weights("cpu")).use { engine ->
            val small = photo(64, 64)
            compare(engine, small, 70.0, TestPlatform(small)) { _, _ -> true }
            System.gc()
            val before = resident("VmRSS")
            resetPeak()
            val original = photo(width, height)
            val made = compare(engine, original, 70.0, TestPlatform(original)) { _, _ -> true }
            val taken = resident("VmHWM") - before
            val counted = Memory.steps(width, height, threads(), made.file.size.toLong()).values.max()
            println("12 megapixels take ${taken shr 20} MB, counted were ${counted shr 20} MB")
            assertTrue("${taken shr 20} MB", taken <= Memory.APP - Memory.PLATFORM)
            assertTrue("${made.psnr}", made.psnr!! > 25)
            // What the benchmark runs besides.
            assertTrue(engine.symbols(made.file) > width)
            assertEquals(64, engine.hash(made.file).pixels.length)
        }
    }
}
