package org.pocketlic.demo

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

/** One conformance vector: the name of its file, and the expected hashes. */
data class Vector(val name: String, val expected: Hashes)

/**
 * The vectors of one model in vectors.json: the folder of their files, and the vectors.
 *
 * Throws IllegalArgumentException when there are none for this model.
 */
fun vectorsOf(json: String, modelId: String): Pair<String, List<Vector>> {
    val models = Json.parseToJsonElement(json).jsonObject.getValue("models").jsonObject
    val (folder, model) = models.entries.firstOrNull { it.value.jsonObject["id"]?.jsonPrimitive?.content == modelId }
        ?: throw IllegalArgumentException("there are no conformance vectors of model ${modelId.take(16)}")
    val vectors = model.jsonObject.getValue("vectors").jsonArray.map { entry ->
        fun text(key: String) = entry.jsonObject.getValue(key).jsonPrimitive.content
        Vector(text("name"), Hashes(text("symbols"), text("pixels")))
    }
    return Pair(folder, vectors)
}

/** The self-test's verdict on a delegate. */
sealed interface Verdict {
    data class Exact(val vectors: Int) : Verdict

    /** [different]: names of the vectors with wrong pixels. */
    data class Different(val different: List<String>, val vectors: Int) : Verdict

    data class Unavailable(val reason: String) : Verdict
}

/**
 * Decodes every vector; [read] gives a vector's file. [progress] gets the number that is done and returns whether to go
 * on. Null when it returned false.
 */
fun selfTest(engine: Engine, vectors: List<Vector>, read: (Vector) -> ByteArray, progress: (Int) -> Boolean): Verdict? {
    val different = mutableListOf<String>()
    for ((done, vector) in vectors.withIndex()) {
        if (!progress(done)) return null
        val equal = try {
            engine.hash(read(vector)) == vector.expected
        } catch (_: PlicException) {
            false
        }
        if (!equal) different += vector.name
    }
    return if (different.isEmpty()) Verdict.Exact(vectors.size) else Verdict.Different(different, vectors.size)
}

/**
 * A runtime for networks besides the native core. [open] takes a number of threads; it throws, or fails to link, where
 * the phone or the build does not have the runtime. [tile] is as in [Engine]; [unit] is CPU, GPU or NPU.
 */
class Delegate(val name: String, val unit: String, val tile: Int, val open: (Int) -> NetworkRunner)

/** An engine on a delegate, or why there is none. No delegate means the native core. */
fun openEngine(weights: ByteArray, delegate: Delegate?, threads: Int): Result<Engine> =
    try {
        Result.success(Engine(weights, delegate?.open?.invoke(threads), delegate?.tile ?: 0))
    } catch (missing: LinkageError) {
        Result.failure(IllegalStateException("not in this build: ${missing.message}"))
    } catch (refused: Exception) {
        Result.failure(IllegalStateException("${refused.message}"))
    }

/** The first delegate that its self-test found exact, or null: the native core. */
fun choose(delegates: List<Delegate>, verdicts: Map<String, Verdict>): Delegate? =
    delegates.firstOrNull { verdicts[it.name] is Verdict.Exact }
