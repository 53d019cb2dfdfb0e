package org.pocketlic.demo

import android.content.Context
import android.os.Build
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.intOrNull
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long

/**
 * The app's assets: `bundle` of `pocketlic export --target android-assets`, the `vectors`, and in `models` the other
 * models, whose files can be opened.
 */
class Assets(private val context: Context) {
    fun read(path: String): ByteArray = context.assets.open(path).use { it.readBytes() }

    fun weights(): ByteArray = read("bundle/model.safetensors")

    /** All model files; the one that the app encodes with comes first. */
    fun allWeights(): Sequence<ByteArray> =
        sequenceOf(weights()) + context.assets.list("models").orEmpty().asSequence().map { read("models/$it") }

    fun samples(): List<String> =
        context.assets.list("bundle").orEmpty().filter { it.endsWith(".jpg") }.map { "bundle/$it" }

    /** The folder of a model's vectors, and those that the self-test runs. */
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

/** The last self-test's verdicts for this model and system version, kept between runs of the app. */
class Verdicts(context: Context, private val modelId: String) {
    private val kept = context.getSharedPreferences("verdicts", Context.MODE_PRIVATE)

    private fun key(delegate: String) = "$modelId/${Build.FINGERPRINT}/$delegate"

    fun isExact(delegate: String): Boolean = kept.getBoolean(key(delegate), false)

    fun keep(delegate: String, verdict: Verdict) {
        kept.edit().putBoolean(key(delegate), verdict is Verdict.Exact).apply()
    }
}

/**
 * The engine of the app: the first delegate that its self-test found exact, or the native core.
 *
 * [model] is the model id of a file. A model that the app does not encode with always runs on the native core.
 */
fun openChosenEngine(context: Context, model: String? = null): Engine {
    val assets = Assets(context)
    val weights = assets.weights()
    val core = Engine(weights)
    if (model != null && !core.modelId.startsWith(model)) {
        core.use { return Engine(weightsOf(model, assets.allWeights()) ?: weights) }
    }
    val verdicts = Verdicts(context, core.modelId)
    val exact = delegates(context).filter { verdicts.isExact(it.name) }.associate { it.name to Verdict.Exact(0) }
    val delegate = choose(delegates(context), exact) ?: return core
    val engine = openEngine(weights, delegate, threads()).getOrNull() ?: return core
    core.close()
    return engine
}
