package org.pocketlic.demo

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.BadParcelableException
import android.os.Bundle
import android.os.Parcelable
import android.provider.MediaStore
import android.view.View
import android.widget.Button
import android.widget.ProgressBar
import android.widget.RadioGroup
import android.widget.SeekBar
import android.widget.TextView
import java.io.FileNotFoundException

/** Pick or take a picture, encode it, compare, save and share; or look at a `.plic` file. */
class MainActivity : WorkScreen<Outcome>() {
    private lateinit var pictures: CompareView
    private lateinit var status: TextView
    private lateinit var progress: ProgressBar
    private lateinit var quality: SeekBar
    private lateinit var encode: Button
    private var source: Uri? = null
    private var outcome: Outcome? = null

    /** A destination that was chosen before there was something to save: after the process died, all is made again. */
    private var saveTo: Uri? = null

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        show(R.layout.main)
        pictures = findViewById(R.id.pictures)
        status = findViewById(R.id.status)
        progress = findViewById(R.id.progress)
        quality = findViewById(R.id.quality)
        encode = findViewById(R.id.encode)
        onClick(R.id.pick) { pick() }
        onClick(R.id.take) { take() }
        onClick(R.id.samples) { startActivityForResult(Intent(this, GalleryActivity::class.java), SAMPLE) }
        onClick(R.id.encode) { if (work?.running == true) work?.cancel() else load() }
        onClick(R.id.save) { save() }
        onClick(R.id.share) { share() }
        onClick(R.id.benchmark) { startActivity(Intent(this, BenchmarkActivity::class.java)) }
        onClick(R.id.self_test) { startActivity(Intent(this, SelfTestActivity::class.java)) }
        findViewById<RadioGroup>(R.id.other).setOnCheckedChangeListener { _, _ -> showPictures() }
        quality.setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, value: Int, byUser: Boolean) = showQuality()

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })
        source = state?.getString(SOURCE)?.let(Uri::parse)
        saveTo = state?.getString(SAVE_TO)?.let(Uri::parse)
        quality.progress = state?.getInt(QUALITY) ?: quality.progress
        showQuality()
        restore(state)
    }

    /** After a rotation the work goes on, or its outcome is shown; after the process died, the picture is read again. */
    @Suppress("DEPRECATION", "UNCHECKED_CAST") // its successor is in AndroidX
    private fun restore(state: Bundle?) {
        work = lastNonConfigurationInstance as Work<Outcome>?
        when (beginOf(work != null, source != null, state == null)) {
            Begin.TAKE_OVER -> work?.attach(this)
            Begin.LOAD -> load()
            Begin.READ_INTENT -> handle(intent)
            Begin.NOTHING -> Unit
        }
        showButtons()
    }

    /** Reads again the pictures that were released. */
    override fun onStart() {
        super.onStart()
        if (outcome == null && work == null && source != null) load()
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (!givesUpPictures(level, work?.running == true)) return
        work?.detach()
        work = null
        forget()
    }

    override fun onDestroy() {
        super.onDestroy()
        if (isFinishing) forget()
    }

    private fun forget() {
        val old = outcome
        outcome = null
        showPictures()
        old?.release()
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putString(SOURCE, source?.toString())
        state.putString(SAVE_TO, saveTo?.toString())
        state.putInt(QUALITY, quality.progress)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        handle(intent)
    }

    private fun onClick(id: Int, action: () -> Unit) = findViewById<View>(id).setOnClickListener { action() }

    private fun handle(intent: Intent) {
        val stream = streamOf(intent)
        val uri = stream ?: intent.data
        val name = uri?.let { nameOf(this, it) }
        when (val asked = requestOf(intent.action, intent.type, intent.dataString, stream?.toString(), name)) {
            is Request.Open, is Request.Encode -> {
                source = uri
                load()
            }
            is Request.Refuse -> status.text = getString(R.string.failed, asked.reason)
            Request.Nothing -> Unit
        }
    }

    /** Intents of other apps, which may hold anything. */
    @Suppress("DEPRECATION") // the typed getter is of API 33
    private fun streamOf(intent: Intent): Uri? = try {
        intent.getParcelableExtra<Parcelable>(Intent.EXTRA_STREAM) as? Uri
    } catch (_: BadParcelableException) {
        null
    }

    private fun pick() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*")
        val types = arrayOf("image/*", PLIC_TYPE, "application/octet-stream")
        ask(intent.putExtra(Intent.EXTRA_MIME_TYPES, types), PICK, R.string.no_files)
    }

    private fun take() {
        val intent = Intent(MediaStore.ACTION_IMAGE_CAPTURE)
            .putExtra(MediaStore.EXTRA_OUTPUT, FilesProvider.uri(this, NEW_PHOTO))
            .addFlags(Intent.FLAG_GRANT_WRITE_URI_PERMISSION or Intent.FLAG_GRANT_READ_URI_PERMISSION)
        FilesProvider.file(this, NEW_PHOTO).delete()
        ask(intent, TAKE, R.string.no_camera)
    }

    private fun save() {
        val intent = Intent(Intent.ACTION_CREATE_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE)
            .setType("application/octet-stream").putExtra(Intent.EXTRA_TITLE, plicName())
        ask(intent, SAVE, R.string.no_files)
    }

    private fun share() {
        val file = outcome?.file ?: return
        val name = plicName()
        val lent = FilesProvider.file(this, name)
        inBackground({ lent.writeBytes(file) }) {
            val intent = Intent(Intent.ACTION_SEND).setType(PLIC_TYPE)
                .putExtra(Intent.EXTRA_STREAM, FilesProvider.uri(this, name))
                .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
            startActivity(Intent.createChooser(intent, getString(R.string.share)))
        }
    }

    private fun plicName() = plicNameOf(source?.lastPathSegment)

    override fun onActivityResult(code: Int, result: Int, data: Intent?) {
        super.onActivityResult(code, result, data)
        if (result != Activity.RESULT_OK) return
        when (code) {
            PICK -> data?.data?.let {
                keepRight(it)
                source = it
                load()
            }
            TAKE -> {
                val photo = FilesProvider.file(this, PHOTO)
                if (!FilesProvider.file(this, NEW_PHOTO).renameTo(photo)) return say(getString(R.string.no_photo))
                source = Uri.fromFile(photo)
                load()
            }
            SAMPLE -> {
                source = data?.data
                load()
            }
            SAVE -> {
                saveTo = data?.data
                write()
            }
        }
    }

    /** So that the picture can be read again after the process died. */
    private fun keepRight(uri: Uri) = try {
        contentResolver.takePersistableUriPermission(uri, Intent.FLAG_GRANT_READ_URI_PERMISSION)
    } catch (_: SecurityException) {
        // Some apps give access only once: then the picture has to be picked again.
    }

    /** Saves as soon as there are both a destination and something to save. */
    private fun write() {
        val file = outcome?.file ?: return
        val to = saveTo ?: return
        saveTo = null
        val resolver = contentResolver
        inBackground({
            val stream = resolver.openOutputStream(to, "wt") ?: throw FileNotFoundException("$to")
            stream.use { it.write(file) }
        }) { say(getString(R.string.saved)) }
    }

    /** Shows the source: decodes it if it is a `.plic` file, else encodes it at the chosen quality. */
    private fun load() {
        val uri = source ?: return
        val chosen = quality.progress
        val context = applicationContext // the work outlives this activity
        work?.detach()
        work?.cancel()
        forget() // frees memory for the next pictures
        work = Work<Outcome> { work -> outcomeOf(context, work, uri, chosen) }.also {
            it.start()
            it.attach(this)
        }
        showButtons()
    }

    override fun onProgress(step: Int, share: Double) {
        if (step != 0) status.setText(step)
        progress.progress = (1000 * share).toInt()
        showButtons()
    }

    override fun onEnd(result: Result<Outcome>) {
        result.onSuccess {
            outcome = it
            status.text = it.text
            write()
        }.onFailure { status.text = explain(it) }
        showPictures()
        showButtons()
    }

    private fun showPictures() {
        val shown = outcome ?: return pictures.show(null, "", null, "")
        val jpeg = findViewById<RadioGroup>(R.id.other).checkedRadioButtonId == R.id.jpeg
        val other = if (jpeg) shown.jpeg else shown.original
        val name = getString(if (jpeg) R.string.jpeg else R.string.original)
        pictures.show(shown.decoded.bitmap, getString(R.string.ours), other?.bitmap, name)
    }

    private fun showQuality() {
        findViewById<TextView>(R.id.quality_label).text = getString(R.string.quality, quality.progress)
    }

    private fun showButtons() {
        val running = work?.running == true
        progress.visibility = if (running) View.VISIBLE else View.INVISIBLE
        encode.setText(if (running) R.string.cancel else R.string.encode)
        val shown = outcome.let { if (it == null) Shown.NOTHING else if (it.original == null) Shown.FILE else Shown.PHOTO }
        val buttons = buttonsOf(running, source != null, shown)
        encode.isEnabled = buttons.encode
        for (id in listOf(R.id.pick, R.id.take, R.id.samples)) findViewById<View>(id).isEnabled = buttons.choose
        for (id in listOf(R.id.save, R.id.share)) findViewById<View>(id).isEnabled = buttons.keep
        for (id in listOf(R.id.original, R.id.jpeg)) findViewById<View>(id).isEnabled = buttons.compare
    }

    private companion object {
        const val PICK = 1
        const val TAKE = 2
        const val SAMPLE = 3
        const val SAVE = 4
        const val SOURCE = "source"
        const val SAVE_TO = "save_to"
        const val QUALITY = "quality"
        const val PHOTO = "photo.jpg"
        const val NEW_PHOTO = "new-photo.jpg"
    }
}
