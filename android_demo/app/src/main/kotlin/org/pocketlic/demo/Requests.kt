package org.pocketlic.demo

/** The request in an intent. */
sealed interface Request {
    data class Open(val uri: String) : Request

    data class Encode(val uri: String) : Request

    data class Refuse(val reason: String) : Request

    data object Nothing : Request
}

const val PLIC_TYPE = "application/x-plic"
private const val VIEW = "android.intent.action.VIEW"
private const val SEND = "android.intent.action.SEND"

/**
 * Reads a VIEW intent ([data]) or a SEND intent ([stream]). Few apps know the type of `.plic` files, so the [name]
 * decides where the [type] is generic.
 */
fun requestOf(action: String?, type: String?, data: String?, stream: String?, name: String?): Request {
    val uri = when (action) {
        VIEW -> data
        SEND -> stream
        else -> return Request.Nothing
    }
    return when {
        uri == null -> Request.Refuse("nothing was sent")
        uri.substringBefore(':') !in setOf("content", "file") -> Request.Refuse("only files can be opened")
        type == PLIC_TYPE || name?.endsWith(".plic", ignoreCase = true) == true -> Request.Open(uri)
        type?.startsWith("image/") == true -> Request.Encode(uri)
        else -> Request.Refuse("neither a .plic file nor a picture")
    }
}

/** The options of a benchmark, from its screen or from the extras of `am start`. */
data class BenchmarkRequest(
    val runs: Int = 20,
    val threads: Int = 1,
    val width: Int = 1920,
    val height: Int = 1080,
    val quality: Double = 60.0,
    val delegate: String = NATIVE_CORE,
    val out: String? = null,
)

const val NATIVE_CORE = "native core"

/**
 * Reads the extras runs, threads, width, height, quality, delegate and out; all may be missing.
 *
 * [out] must name a file in the app's own folder on the storage that adb can read, [ownFolder] behind any mount point;
 * only its name is kept. Throws IllegalArgumentException with one line on anything out of range.
 */
fun benchmarkRequestOf(extras: Map<String, Any?>, ownFolder: String): BenchmarkRequest {
    val default = BenchmarkRequest()
    // `am` has --ei, --ef and --es; numbers may come by any of them.
    fun number(key: String, otherwise: Double, range: ClosedFloatingPointRange<Double>): Double {
        val value = extras[key] ?: return otherwise
        val found = (value as? Number)?.toDouble() ?: value.toString().toDoubleOrNull()
        val (low, high) = Pair(range.start.toInt(), range.endInclusive.toInt())
        require(found != null && found in range) { "$key must be $low to $high" }
        return found
    }
    val out = extras["out"]?.toString()?.let { path ->
        val name = path.substringAfterLast('/')
        val plain = name.matches(Regex("[A-Za-z0-9_-][A-Za-z0-9._-]*"))
        require(plain && path.removeSuffix("/$name").endsWith(ownFolder)) { "out must be a file in $ownFolder" }
        name
    }
    return BenchmarkRequest(
        runs = number("runs", default.runs.toDouble(), 1.0..1000.0).toInt(),
        threads = number("threads", default.threads.toDouble(), 1.0..16.0).toInt(),
        width = number("width", default.width.toDouble(), 1.0..8192.0).toInt(),
        height = number("height", default.height.toDouble(), 1.0..8192.0).toInt(),
        quality = number("quality", default.quality, 0.0..100.0),
        delegate = extras["delegate"]?.toString() ?: default.delegate,
        out = out,
    )
}
