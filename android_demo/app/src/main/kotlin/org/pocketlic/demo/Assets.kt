package org.pocketlic.demo

import android.content.Context
import android.os.Build
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.intOrNull
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long

/** What the app was built with: `bundle`, as `pocketlic export --target android-assets` makes it, and `vectors`. */
class Assets(private val context: Context) {
    fun read(path: String): ByteArray = context.assets.open(path).use { it.readBytes() }

    fun weights(): ByteArray = read("bundle/model.safetensors")

    fun samples(): List<String> =
        context.assets.list("bundle").orEmpty().filter { it.endsWith(".jpg") }.map { "bundle/$it" }

    /** The folder of vectors and the vectors that the self-test runs with a model. */
    fun vectors(modelId: String): Pair<String, List<Vector>> =
        vectorsOf(read("vectors/vectors.json").decodeToString(), modelId)

    fun facts(): BundleFacts {
        val manifest = Json.parseToJsonElement(read("bundle/manifest.json").decodeToString()).jsonObject
        val files = manifest.getValue("files").jsonObject.values
        val bytes = files.sumOf { it.jsonObject.getValue("bytes").jsonPrimitive.long }
        return BundleFacts(
            manifest.getValue("target").jsonPrimitive.content,
            manifest["tile"]?.jsonPrimitive?.intOrNull,
            rounded(bytes / 1e6),
        )
    }
}

/** The verdicts of the last self-test with this model on this version of the system, kept between runs of the app. */
class Verdicts(context: Context, private val modelId: String) {
    private val kept = context.getSharedPreferences("verdicts", Context.MODE_PRIVATE)

    private fun key(delegate: String) = "$modelId/${Build.FINGERPRINT}/$delegate"

    fun isExact(delegate: String): Boolean = kept.getBoolean(key(delegate), false)

    fun keep(delegate: String, verdict: Verdict) {
        kept.edit().putBoolean(key(delegate), verdict is Verdict.Exact).apply()
    }
}

/** The engine that the app works with: the first delegate that its self-test found exact, or the native core. */
fun openChosenEngine(context: Context): Engine {
    val weights = Assets(context).weights()
    val core = Engine(weights)
    val verdicts = Verdicts(context, core.modelId)
    val exact = delegates(context).filter { verdicts.isExact(it.name) }.associate { it.name to Verdict.Exact(0) }
    val delegate = choose(delegates(context), exact) ?: return core
    val engine = openEngine(weights, delegate, threads()).getOrNull() ?: return core
    core.close()
    return engine
}

/** As many threads as decoding gains from; phones have few large cores. */
fun threads(): Int = Runtime.getRuntime().availableProcessors().coerceIn(1, 4)
