package org.pocketlic.demo

import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.net.Uri
import android.os.Debug
import android.widget.TextView
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assert.fail
import org.junit.Test
import org.junit.runner.RunWith
import java.io.File

/** On a phone: `gradle connectedLitertDebugAndroidTest`, or Executorch in place of Litert. */
@RunWith(AndroidJUnit4::class)
class EngineOnDeviceTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()
    private val context = instrumentation.targetContext
    private val assets = Assets(context)

    private fun verdict(delegate: Delegate?): Verdict? =
        openEngine(assets.weights(), delegate, threads()).fold(
            { engine ->
                engine.use {
                    val (folder, vectors) = assets.vectors(it.modelId)
                    selfTest(it, vectors, { vector -> assets.read("vectors/$folder/${vector.name}.plic") }) { true }
                }
            },
            { Verdict.Unavailable(it.message.orEmpty()) },
        )

    @Test
    fun theNativeCoreIsExact() = assertTrue("${verdict(null)}", verdict(null) is Verdict.Exact)

    /** CPU delegates must be exact; an NPU that is not exact is detected and not used. */
    @Test
    fun delegatesOnTheCpuAreExact() {
        for (delegate in delegates(context).filter { it.unit == "CPU" }) {
            assertTrue("${delegate.name}: ${verdict(delegate)}", verdict(delegate) is Verdict.Exact)
        }
    }

    @Test
    fun aSamplePictureThereAndBack() {
        val photo = loadPhoto(context, Uri.parse("asset:/${assets.samples().first()}")).raster
        Engine(assets.weights()).use { engine ->
            val made = compare(engine, photo, 90.0, AndroidPlatform) { _, _ -> true }
            assertTrue("${made.psnr} dB", made.psnr!! > 30)
            assertTrue("${made.jpegBytes} bytes", made.jpegBytes >= made.file.size)
        }
    }

    @Test
    fun filesOfAllModelsAreOpened() {
        val all = assets.allWeights().toList()
        assertEquals(3, all.size)
        for (weights in all) {
            val file = Engine(weights).use { it.encode(20, 10, 3, 50.0) { _, _ -> true } }
            openChosenEngine(context, Engine.inspect(file).model).use { decode(it, file, AndroidPlatform) { true } }
        }
    }

    /** TOTAL PSS of `dumpsys meminfo`, while a photo of 12 megapixels is compared. */
    @Test
    fun twelveMegapixelsWithin256Megabytes() {
        val large = Bitmap.createScaledBitmap(
            loadPhoto(context, Uri.parse("asset:/${assets.samples().first()}")).raster.bitmap, 4032, 3024, true,
        )
        var most = 0
        Engine(assets.weights()).use { engine ->
            compare(engine, BitmapRaster(large), 70.0, AndroidPlatform) { _, _ ->
                val now = Debug.MemoryInfo().also(Debug::getMemoryInfo).totalPss
                synchronized(engine) { most = maxOf(most, now) }
                true
            }
        }
        assertTrue("$most kB", most * 1024L <= Memory.APP)
    }

    @Test
    fun theBenchmarkWritesItsProfile() {
        val name = "test-benchmark.json"
        val file = File(context.getExternalFilesDir(null), name)
        file.delete()
        start(Intent(context, BenchmarkActivity::class.java).putExtra("runs", 1).putExtra("width", 256)
            .putExtra("height", 256).putExtra("out", "/sdcard/Android/data/${context.packageName}/files/$name")) {
            for (second in 1..120) {
                if (file.exists()) return@start
                Thread.sleep(1000)
            }
            fail("no profile in 120 s")
        }
        val profile = Json.parseToJsonElement(file.readText()).jsonObject
        assertEquals("pocketlic-profile", profile.getValue("schema").jsonPrimitive.content)
    }

    @Test
    fun aDamagedFileFromAnotherAppIsExplained() {
        FilesProvider.file(context, "damaged.plic").writeBytes(Engine.MAGIC + ByteArray(40))
        val intent = Intent(context, MainActivity::class.java).setAction(Intent.ACTION_VIEW)
            .setDataAndType(FilesProvider.uri(context, "damaged.plic"), PLIC_TYPE)
        start(intent) { activity ->
            val status = activity.findViewById<TextView>(R.id.status)
            for (tenth in 1..100) {
                if (status.text.startsWith("It did not work")) return@start
                Thread.sleep(100)
            }
            fail("the screen says: ${status.text}")
        }
    }

    private fun start(intent: Intent, check: (Activity) -> Unit) {
        val activity = instrumentation.startActivitySync(intent.addFlags(Intent.FLAG_ACTIVITY_NEW_TASK))
        try {
            check(activity)
        } finally {
            activity.finish()
        }
    }
}
