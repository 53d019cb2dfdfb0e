package org.pocketlic.demo

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.graphics.Bitmap
import android.net.Uri
import android.os.BadParcelableException
import android.os.BatteryManager
import android.os.Build
import android.os.Bundle
import android.os.PowerManager
import android.os.SystemClock
import android.view.View
import android.view.WindowManager
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.EditText
import android.widget.ProgressBar
import android.widget.Spinner
import android.widget.TextView
import java.io.File
import java.io.IOException
import java.time.Instant
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

/**
 * Measures encoding and decoding, and writes a profile of profiling/device/profile.schema.json. Unattended:
 *
 *     am start -W -n org.pocketlic.demo/.BenchmarkActivity --ei runs 20 --ei threads 1 \
 *         --es out /sdcard/Android/data/org.pocketlic.demo/files/benchmark.json
 *
 * The extras are those of [benchmarkRequestOf]. The file appears whole, or, where the benchmark failed, as JSON with
 * nothing but an error.
 */
class BenchmarkActivity : WorkScreen<File>() {
    private lateinit var report: TextView

    @Suppress("DEPRECATION", "UNCHECKED_CAST")
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        show(R.layout.benchmark)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        report = findViewById(R.id.report)
        val default = BenchmarkRequest()
        findViewById<EditText>(R.id.runs).setText("${default.runs}")
        findViewById<EditText>(R.id.threads).setText("${default.threads}")
        fill(R.id.resolution, SIZES.map { (width, height) -> "$width × $height" }, 1)
        fill(R.id.delegate, listOf(NATIVE_CORE) + delegates(this).map { it.name }, 0)
        findViewById<Button>(R.id.run).setOnClickListener {
            if (work?.running == true) work?.cancel() else begin(asked())
        }
        work = lastNonConfigurationInstance as Work<File>?
        work?.attach(this) ?: unattended(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        unattended(intent)
    }

    private fun fill(id: Int, choices: List<String>, chosen: Int) {
        val spinner = findViewById<Spinner>(id)
        spinner.adapter = ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, choices)
        spinner.setSelection(chosen)
    }

    /** The options on the screen, as extras of `am start`. */
    private fun asked(): Map<String, Any?> {
        val (width, height) = SIZES[findViewById<Spinner>(R.id.resolution).selectedItemPosition]
        return mapOf(
            "runs" to "${findViewById<EditText>(R.id.runs).text}",
            "threads" to "${findViewById<EditText>(R.id.threads).text}",
            "width" to width,
            "height" to height,
            "delegate" to findViewById<Spinner>(R.id.delegate).selectedItem,
        )
    }

    @Suppress("DEPRECATION") // typed getters need the type, which may be any of three
    private fun unattended(intent: Intent) {
        val extras = intent.extras ?: return
        val asked = try {
            extras.keySet().associateWith { extras.get(it) }
        } catch (_: BadParcelableException) { // other apps may send anything
            return
        }
        begin(asked)
    }

    private fun begin(asked: Map<String, Any?>) {
        if (work?.running == true) return
        val context = applicationContext
        val folder = "/Android/data/$packageName/files"
        val request = try {
            benchmarkRequestOf(asked, folder)
        } catch (wrong: IllegalArgumentException) {
            report.text = wrong.message
            // Tell whoever waits for the file, if its name is known.
            val out = runCatching { benchmarkRequestOf(asked.filterKeys { it == "out" }, folder).out }.getOrNull()
            if (out != null) inBackground({ writeError(target(context, out), wrong) }) {}
            return
        }
        work = Work<File> { work -> measure(context, request, work) }.also {
            it.start()
            it.attach(this)
        }
    }

    override fun onProgress(step: Int, share: Double) {
        val bar = findViewById<ProgressBar>(R.id.progress)
        bar.visibility = View.VISIBLE
        bar.progress = (1000 * share).toInt()
        findViewById<Button>(R.id.run).setText(R.string.cancel)
        if (step != 0) report.setText(step)
    }

    override fun onEnd(result: Result<File>) {
        findViewById<ProgressBar>(R.id.progress).visibility = View.INVISIBLE
        findViewById<Button>(R.id.run).setText(R.string.run)
        report.text = result.fold(::summary, ::explain)
    }

    private fun summary(file: File): String {
        val profile = Json.parseToJsonElement(file.readText()).jsonObject
        val run = profile.getValue("devices").jsonArray[0].jsonObject.getValue("runs").jsonArray[0].jsonObject
        fun median(side: String) = run.getValue("latency_metrics").jsonObject.getValue(side).jsonObject
            .getValue("total").jsonObject.getValue("median_ms").jsonPrimitive.content
        val equal = run.getValue("determinism").jsonObject.getValue("equal").jsonPrimitive.content == "true"
        return getString(
            R.string.benchmark_done, median("encode"), median("decode"),
            getString(if (equal) R.string.exact else R.string.not_exact), file.path,
        )
    }

    private companion object {
        val SIZES = listOf(Pair(768, 512), Pair(1920, 1080), Pair(4032, 3024))
    }
}

/** Runs the benchmark and writes its profile where adb can pull it. */
private fun measure(context: Context, request: BenchmarkRequest, work: Work<File>): File {
    val target = target(context, request.out ?: "benchmark.json")
    val profile = try {
        profileOf(context, request, work)
    } catch (failure: Throwable) { // also out of memory
        // Tell whoever waits for the file that there will be none.
        if (request.out != null) writeError(target, failure)
        throw failure
    }
    return write(target, profile)
}

private fun target(context: Context, name: String) = File(context.getExternalFilesDir(null) ?: context.filesDir, name)

private fun writeError(target: File, failure: Throwable) =
    write(target, JsonObject(mapOf("error" to JsonPrimitive(failure.message ?: failure.javaClass.simpleName))))

private fun profileOf(context: Context, request: BenchmarkRequest, work: Work<File>): JsonObject {
    val assets = Assets(context)
    val weights = assets.weights()
    val delegate = delegates(context).firstOrNull { it.name == request.delegate }
    require(delegate != null || request.delegate == NATIVE_CORE) { "there is no delegate ${request.delegate}" }
    val started = SystemClock.elapsedRealtimeNanos()
    openEngine(weights, delegate, request.threads).getOrThrow().use { engine ->
        val initMs = (SystemClock.elapsedRealtimeNanos() - started) / 1e6
        Engine(weights).use { reference ->
            val picture = sample(context, assets.samples().first(), request.width, request.height)
            return benchmark(
                request, engine, reference, delegate?.unit ?: "CPU", initMs, picture, assets.facts(),
                deviceFacts(context), Instant.now().toString(),
            ) { work.report(R.string.benchmark, it) }
        }
    }
}

/** Writes the file atomically: once it exists, it is complete. */
private fun write(target: File, json: JsonObject): File {
    val unfinished = File(target.path + ".new")
    unfinished.writeText(json.toString())
    if (!unfinished.renameTo(target)) throw IOException("cannot write ${target.name}")
    return target
}

private fun sample(context: Context, asset: String, width: Int, height: Int): Picture {
    val photo = loadPhoto(context, Uri.parse("asset:/$asset")).raster.bitmap
    val scaled = Bitmap.createScaledBitmap(photo, width, height, true)
    val argb = IntArray(width * height)
    scaled.getPixels(argb, 0, width, 0, 0, width, height)
    scaled.recycle()
    val name = asset.substringAfterLast('/').substringBeforeLast('.')
    return Picture("$name-${width}x$height", width, height, argb)
}

private fun deviceFacts(context: Context): DeviceFacts {
    val emulated = Build.HARDWARE in setOf("ranchu", "goldfish")
    val properties = mapOf(
        "manufacturer" to Build.MANUFACTURER,
        "model" to Build.MODEL,
        "soc" to if (Build.VERSION.SDK_INT >= 31) Build.SOC_MODEL else Build.HARDWARE,
        "abi" to Build.SUPPORTED_ABIS[0],
        "android" to Build.VERSION.RELEASE,
        "build" to Build.FINGERPRINT,
    )
    val version = context.packageManager.getPackageInfo(context.packageName, 0).versionName.orEmpty()
    return DeviceFacts(Build.MODEL, emulated, properties, version, { conditions(context) }, ::peakMemoryMb)
}

private fun conditions(context: Context): Conditions {
    val clocks = (0 until Runtime.getRuntime().availableProcessors()).mapNotNull { cpu ->
        val path = "/sys/devices/system/cpu/cpu$cpu/cpufreq/scaling_cur_freq"
        readOrNull(path)?.trim()?.toIntOrNull()?.let { "$cpu" to it }
    }.toMap()
    val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
    val tenths = battery?.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, 0) ?: 0
    val temperatures = if (tenths > 0) mapOf("battery" to tenths / 10.0) else emptyMap()
    val flags = mutableListOf<String>()
    if (Build.VERSION.SDK_INT >= 29) {
        val status = context.getSystemService(PowerManager::class.java).currentThermalStatus
        if (status > 0) flags += "throttled: thermal status $status"
    }
    return Conditions(clocks, temperatures, flags)
}

private fun peakMemoryMb(): Double? = readOrNull("/proc/self/status")
    ?.let { Regex("VmHWM:\\s+(\\d+) kB").find(it) }?.let { it.groupValues[1].toLong() / 1e3 }

private fun readOrNull(path: String): String? = try {
    File(path).readText()
} catch (_: IOException) {
    null
}
