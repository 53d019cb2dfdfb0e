package org.pocketlic.demo

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Test
import java.io.File

/**
 * Runs in a process of its own and measures that process's memory. Freed large blocks must go back to the system, as
 * with Android's allocators; glibc needs MALLOC_MMAP_THRESHOLD_ for that.
 */
class MemoryTest {
    @Before
    fun aLibraryIsThere() = assumeLibrary()

    /** Resident bytes of the process, now and at most since [resetPeak], as Linux counts them. */
    private fun resident(what: String) = File("/proc/self/status").readLines().first { it.startsWith("$what:") }
        .filter(Char::isDigit).toLong() * 1024

    private fun resetPeak() = File("/proc/self/clear_refs").writeText("5")

    /** The memory for comparing 4032x3024 pixels: the whole process, with pictures and Java's heap. */
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
            // The other parts of the benchmark.
            assertTrue(engine.symbols(made.file) > width)
            assertEquals(64, engine.hash(made.file).pixels.length)
        }
    }
}
