package org.pocketlic.demo

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import java.io.File
import java.nio.ByteBuffer
import java.security.MessageDigest
import java.util.concurrent.atomic.AtomicInteger

/** The JNI library on a desktop's JVM, of any processor: see [assumeLibrary]. `pocketlic.report` keeps a profile. */
class EngineTest {
    @Before
    fun aLibraryIsThere() = assumeLibrary()

    private fun file(vector: Vector, folder: String = "cpu") = File(vectors, "$folder/${vector.name}.plic").readBytes()

    private fun json() = File(vectors, "vectors.json").readText()

    private fun sha256(bytes: ByteArray) = hex(MessageDigest.getInstance("SHA-256").digest(bytes))

    private fun encode(engine: Engine, width: Int, height: Int, quality: Double = 50.0) =
        engine.encode(width, height, 3, quality) { y, rgb ->
            row(width, y, rgb)
            true
        }

    @Test
    fun conformanceVectorsOfAllModels() {
        val names = Json.parseToJsonElement(json()).jsonObject.getValue("models").jsonObject.keys
        assertTrue("$names", names.containsAll(setOf("cpu", "strict")))
        for (name in names) {
            Engine(weights(name)).use { engine ->
                val (folder, listed) = vectorsOf(json(), engine.modelId)
                assertEquals(name, folder)
                assertEquals(name, Verdict.Exact(listed.size), selfTest(engine, listed, { file(it, folder) }, { true }))
                assertTrue(listed.size > 20)
            }
        }
    }

    @Test
    fun rowsOnSeveralThreads() {
        Engine(weights("cpu")).use { engine ->
            val (width, height) = if (emulated) Pair(70, 1100) else Pair(300, 2100)
            val data = encode(engine, width, height)
            assertEquals(PictureInfo(width, height, 3, 50.0, engine.modelId.take(16)), Engine.inspect(data))
            for (threads in listOf(1, 2, 5)) {
                val pixels = ByteArray(3 * width * height)
                engine.decode(data, threads) { first, count, rows ->
                    rows.copyInto(pixels, 3 * width * first, 0, 3 * width * count)
                    true
                }
                assertEquals("$threads threads", engine.hash(data).pixels, sha256(pixels))
            }
            assertTrue(engine.symbols(data) > width)
            assertArrayEquals(Engine.MAGIC, data.copyOf(Engine.MAGIC.size))
        }
    }

    /** The core's own networks as the runner, in place of a delegate: whole windows and fixed tiles. */
    @Test
    fun aForeignRunnerGivesTheSameFilesAndPixels() {
        val (width, height) = if (emulated) Pair(300, 260) else Pair(1400, 1100)
        Engine(weights("cpu")).use { core ->
            val data = encode(core, width, height)
            for (tile in listOf(0, 256, 512)) {
                val runs = AtomicInteger()
                val runner = NetworkRunner { name, h, w, inputs, outputs ->
                    if (tile > 0) assertEquals(h, w)
                    runs.incrementAndGet()
                    core.run(name, h, w, inputs, outputs)
                }
                Engine(weights("cpu"), runner, tile).use { foreign ->
                    assertArrayEquals("tile $tile", data, encode(foreign, width, height))
                    assertEquals("tile $tile", core.hash(data), foreign.hash(data))
                }
                // A tile larger than the picture is never run.
                assertEquals("tile $tile", tile <= minOf(width, height), runs.get() > 0)
            }
        }
    }

    @Test
    fun theSelfTestFindsOneWrongBit() {
        Engine(weights("cpu")).use { core ->
            val (_, listed) = vectorsOf(json(), core.modelId)
            val some = listed.filter { it.name in setOf("one-pixel", "odd", "whole-cell") }
            val wrong = NetworkRunner { name, h, w, inputs, outputs ->
                core.run(name, h, w, inputs, outputs)
                // A pixel of the picture, not one of its padding.
                if (name == "synthesis" && w > 4) outputs[0].put(0, (outputs[0].get(0).toInt() xor 1).toByte())
                true
            }
            Engine(weights("cpu"), wrong).use { engine ->
                val verdict = selfTest(engine, some, ::file) { true }
                assertEquals(Verdict.Different(listOf("odd"), 3), verdict)
            }
            val refusing = NetworkRunner { _, _, _, _, _ -> false }
            val throwing = NetworkRunner { _, _, _, _, _ -> error("x") }
            for (failing in listOf(refusing, throwing)) {
                Engine(weights("cpu"), failing).use {
                    assertEquals(Verdict.Exact(3), selfTest(it, some, ::file) { true })
                }
            }
            assertEquals(null, selfTest(core, some, ::file) { done -> done < 1 })
        }
    }

    @Test
    fun delegatesThatAreNotThere() {
        val missing = Delegate("x", "NPU", 0) { throw NoClassDefFoundError("com/example/Runtime") }
        fun why(weights: ByteArray, delegate: Delegate?) = openEngine(weights, delegate, 1).exceptionOrNull()?.message
        assertEquals("not in this build: com/example/Runtime", why(weights("cpu"), missing))
        assertEquals("not a Pocketlic model: no safetensors header", why(ByteArray(3), null))
        openEngine(weights("cpu"), null, 1).getOrThrow().close()
    }

    @Test
    fun stopsAndFailures() {
        Engine(weights("cpu")).use { engine ->
            val data = encode(engine, 100, 600)
            fun status(work: () -> Unit) = assertThrows(PlicException::class.java) { work() }.status
            assertEquals(PlicException.STOPPED, status { engine.decode(data) { first, _, _ -> first > 0 } })
            assertEquals(PlicException.STOPPED, status { engine.decode(data, 2) { _, _, _ -> false } })
            assertEquals(PlicException.STOPPED, status { engine.encode(9, 9, 3, 50.0) { y, _ -> y < 5 } })
            assertThrows(IllegalStateException::class.java) { engine.decode(data) { _, _, _ -> error("full") } }
            assertThrows(IllegalStateException::class.java) { engine.decode(data, 2) { _, _, _ -> error("full") } }
            assertThrows(IllegalStateException::class.java) { engine.encode(9, 9, 3, 50.0) { _, _ -> error("gone") } }
            data[data.size / 2] = (data[data.size / 2] + 1).toByte()
            val failure = assertThrows(PlicException::class.java) { engine.hash(data) }
            assertFalse(failure.message!!.contains('\n'))
            for (bad in listOf(data, ByteArray(0), "JPEG".toByteArray()))
                assertThrows(PlicException::class.java) { Engine.inspect(bad) }
            assertThrows(PlicException::class.java) { engine.encode(9, 9, 3, 100.5) { _, _ -> true } }
        }
    }

    @Test
    fun aPictureIsCompared() {
        val original = photo(200, 130)
        Engine(weights("cpu")).use { engine ->
            val platform = TestPlatform(original)
            val shares = mutableListOf<Pair<Step, Double>>()
            val made = compare(engine, original, 60.0, platform) { step, share -> shares.add(Pair(step, share)) }
            assertEquals(60.0, Engine.inspect(made.file).quality, 0.0)
            assertEquals(listOf(Step.ENCODING, Step.DECODING, Step.MATCHING), shares.map { it.first }.distinct())
            assertEquals(shares.map { it.second }.sorted(), shares.map { it.second })
            assertTrue("${made.psnr}", made.psnr!! > 25)
            assertEquals(psnrOf(original, made.jpeg), made.jpegPsnr)
            assertTrue(made.jpegBytes >= made.file.size && made.jpegBytes - 26 < made.file.size)
            assertEquals(0, platform.released)
            val shown = decode(engine, made.file, platform) { true }
            assertEquals(null, psnrOf(made.decoded, shown))
            // After a stop at any step, only the original is left in memory.
            for (step in listOf(Step.ENCODING, Step.DECODING, Step.MATCHING)) {
                val stopped = TestPlatform(original)
                val failure = assertThrows(Exception::class.java) {
                    compare(engine, original, 60.0, stopped) { now, _ -> now != step }
                }
                assertTrue("$failure", failure is Cancelled || failure is PlicException)
                assertEquals("$step", if (step == Step.ENCODING) 0 else 1, stopped.released)
            }
        }
    }

    @Test
    fun filesOfOtherModels() {
        val names = listOf("cpu", "strict", "cpu-psnr", "cpu-low", "cpu-high", "cpu-psnr-low", "cpu-psnr-high")
        val all = names.map(::weights)
        for (weights in all) {
            Engine(weights).use { engine ->
                val model = Engine.inspect(encode(engine, 9, 9)).model
                assertEquals(engine.modelId.take(16), model)
                assertArrayEquals(weights, weightsOf(model, all.asSequence()))
            }
        }
        assertEquals(null, weightsOf("0123456789abcdef", all.asSequence()))
        Engine(all[0]).use { engine ->
            val other = Engine(all[2]).use { encode(it, 9, 9) }
            assertEquals(4, assertThrows(PlicException::class.java) { engine.hash(other) }.status)
        }
    }

    /** The benchmark as the app runs it. test_jvm.py checks its profile against the schema. */
    @Test
    fun theBenchmarksProfile() {
        val picture = Picture("pattern", 130, 100, IntArray(130 * 100) { -0x1000000 or (it * 1031) })
        val facts = DeviceFacts(
            "host", emulated, mapOf("model" to "JVM"), "0",
            { Conditions(mapOf("0" to 2_400_000), mapOf("battery" to 30.4), listOf("warm")) }, { 12.5 },
        )
        Engine(weights("cpu")).use { engine ->
            val request = BenchmarkRequest(runs = 2, threads = 2)
            val shares = mutableListOf<Double>()
            fun profile(other: Engine, progress: (Double) -> Boolean) = benchmark(
                request, engine, other, "CPU", 1.25, picture, BundleFacts("android-assets", 512, 1.5), facts,
                "2030-01-01T00:00:00Z", progress,
            )
            val made = profile(engine) { shares.add(it) }
            assertEquals(3 * 6, shares.size)
            assertEquals(shares.sorted(), shares)
            assertTrue(made.toString().contains("\"equal\":true"))
            assertThrows(Cancelled::class.java) { profile(engine) { it < 0.5 } }
            System.getProperty("pocketlic.report")?.let { File(it).writeText(made.toString()) }
        }
    }
}
