package org.pocketlic.demo

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.add
import kotlinx.serialization.json.addJsonObject
import kotlinx.serialization.json.buildJsonArray
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonArray
import kotlinx.serialization.json.putJsonObject

const val WARM_UPS = 3

/** A picture in memory, 0xAARRGGBB. */
class Picture(val name: String, val width: Int, val height: Int, val argb: IntArray)

/** Clock rates in kHz by CPU, temperatures in degrees by sensor, and reasons not to measure now. */
class Conditions(val clocks: Map<String, Int>, val temperatures: Map<String, Double>, val flags: List<String>)

/** The phone's properties. [properties] have the profiler's names. */
class DeviceFacts(
    val name: String,
    val emulated: Boolean,
    val properties: Map<String, String>,
    val appVersion: String,
    val conditions: () -> Conditions,
    val peakMemoryMb: () -> Double?,
)

/** The parts of the assets' manifest that a profile repeats. */
class BundleFacts(val target: String, val tile: Int?, val sizeMb: Double)

/** Thrown by a benchmark that was cancelled. */
class Cancelled : Exception("cancelled")

/**
 * Measures encoding and decoding, and returns a profile: JSON of profiling/device/profile.schema.json.
 *
 * [reference] is the native core; the others must give its symbols and pixels. [progress] gets the fraction that is
 * done and returns whether to go on. Throws Cancelled when not.
 */
fun benchmark(
    request: BenchmarkRequest,
    engine: Engine,
    reference: Engine,
    unit: String,
    initMs: Double,
    picture: Picture,
    bundle: BundleFacts,
    facts: DeviceFacts,
    created: String,
    progress: (Double) -> Boolean,
): JsonObject {
    val started = System.nanoTime()
    val before = facts.conditions()
    val count = 1 + WARM_UPS + request.runs
    var done = 0

    fun times(work: () -> Unit): List<Double> = List(count) {
        if (!progress(done++ / (3.0 * count))) throw Cancelled()
        val start = System.nanoTime()
        work()
        (System.nanoTime() - start) / 1e6
    }

    val threads = minOf(request.threads, Memory.decoders(picture.width, picture.height, request.threads))
    var file = ByteArray(0)
    val encoding = times {
        file = engine.encode(picture.width, picture.height, 3, request.quality) { row, pixels ->
            toRgb(picture.argb, row * picture.width, picture.width, pixels)
            true
        }
    }
    val entropy = times { engine.symbols(file) }
    val decoding = times { engine.decode(file, request.threads) { _, _, _ -> true } }
    val error = squaredErrorOf(engine, file, picture)
    val expected = reference.hash(file)
    val hashes = engine.hash(file)
    val after = facts.conditions()

    return buildJsonObject {
        put("schema", "pocketlic-profile")
        put("version", 1)
        put("created", created)
        putJsonObject("tools") { put("pocketlic-demo", facts.appVersion) }
        putJsonObject("bundle") {
            put("target", bundle.target)
            put("profile", engine.profile)
            put("model_id", engine.modelId)
            put("tile", bundle.tile)
            put("model_size_mb", bundle.sizeMb)
        }
        putJsonObject("protocol") {
            put("num_runs", request.runs)
            put("num_warmup_runs", WARM_UPS)
            put("threads", request.threads)
            put("quality", request.quality)
        }
        putJsonArray("devices") {
            addJsonObject {
                put("name", facts.name)
                put("kind", "adb")
                put("emulated", facts.emulated)
                put("properties", JsonObject(facts.properties.mapValues { JsonPrimitive(it.value) }))
                put("primary_compute_unit", unit)
                putJsonArray("affinity") {}
                putJsonObject("conditions") {
                    put("before", before.toJson())
                    put("after", after.toJson())
                }
                putJsonArray("flags") {
                    for (flag in before.flags) add("before: $flag")
                    for (flag in after.flags) add("after: $flag")
                    if (threads < request.threads) add("decoded on $threads of ${request.threads} threads")
                    if (facts.emulated) add("emulated: times are the emulator's and say nothing of a phone")
                }
                put("seconds", rounded((System.nanoTime() - started) / 1e9))
                putJsonArray("runs") {
                    addJsonObject {
                        put("image", picture.name)
                        put("width", picture.width)
                        put("height", picture.height)
                        put("bytes", file.size)
                        put("bpp", rounded(bitsPerPixel(file.size, picture.width, picture.height)))
                        put("psnr_db", psnr(error, picture.width.toLong() * picture.height)?.let(::rounded))
                        put("runtime", request.delegate)
                        put("init_ms", rounded(initMs))
                        putJsonObject("latency_metrics") {
                            put("encode", latency(encoding, emptyMap()))
                            put("decode", latency(decoding, mapOf("entropy_decoding" to entropy)))
                        }
                        putJsonObject("memory_metrics") { facts.peakMemoryMb()?.let { put("peak_mem_mb", it) } }
                        putJsonObject("energy") {
                            for (side in listOf("encode", "decode")) putJsonObject(side) {
                                put("available", false)
                                put("reason", "an app cannot read the rails; profile with --device adb")
                            }
                        }
                        put("determinism", determinism(hashes, expected))
                    }
                }
            }
        }
    }
}

private fun squaredErrorOf(engine: Engine, file: ByteArray, picture: Picture): Long {
    var sum = 0L
    val strip = IntArray(Memory.STRIP * picture.width)
    val original = IntArray(strip.size)
    engine.decode(file) { first, rows, pixels ->
        val count = rows * picture.width
        toArgb(pixels, count, 3, strip)
        picture.argb.copyInto(original, 0, first * picture.width, first * picture.width + count)
        sum += squaredError(strip, original, count)
        true
    }
    return sum
}

private fun Conditions.toJson() = buildJsonObject {
    put("cpu_khz", JsonObject(clocks.mapValues { JsonPrimitive(it.value) }))
    put("temperature_c", JsonObject(temperatures.mapValues { JsonPrimitive(it.value) }))
    put("flags", JsonArray(flags.map(::JsonPrimitive)))
}

private fun latency(totals: List<Double>, stages: Map<String, List<Double>>) = buildJsonObject {
    put("first_inference_ms", rounded(totals[0]))
    put("average_warm_up_ms", rounded(totals.subList(1, 1 + WARM_UPS).average()))
    put("total", statistics(totals))
    put("stages", JsonObject(stages.mapValues { statistics(it.value) }))
}

private fun statistics(all: List<Double>): JsonObject {
    val s = Statistics(all.drop(1 + WARM_UPS))
    return buildJsonObject {
        put("avg_ms", s.average)
        put("median_ms", s.percentile(50.0))
        put("p90_ms", s.percentile(90.0))
        put("p99_ms", s.percentile(99.0))
        put("stddev_ms", s.deviation)
        put("min_ms", s.minimum)
        put("max_ms", s.maximum)
        put("samples_ms", JsonArray(s.samples.map(::JsonPrimitive)))
    }
}

private fun determinism(got: Hashes, expected: Hashes) = buildJsonObject {
    put("available", true)
    put("equal", got == expected)
    put("stages", buildJsonArray {
        for ((stage, pair) in listOf(
            "symbols" to Pair(got.symbols, expected.symbols),
            "pixels" to Pair(got.pixels, expected.pixels),
        )) addJsonObject {
            put("stage", stage)
            put("sha256", pair.first)
            put("reference", pair.second)
            put("equal", pair.first == pair.second)
        }
    })
    put("first_difference", JsonNull)
    // The largest difference is known only when it is 0.
    put("max_difference", if (got == expected) JsonPrimitive(0) else JsonNull)
}
