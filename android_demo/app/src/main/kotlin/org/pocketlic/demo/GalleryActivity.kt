package org.pocketlic.demo

import android.content.Context
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.net.Uri
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.widget.BaseAdapter
import android.widget.GridView
import android.widget.ImageView

/** A sample's path among the assets, and its thumbnail. */
typealias Sample = Pair<String, Bitmap>

/** Shows the sample pictures of the assets; the one that is tapped is the result. */
class GalleryActivity : WorkScreen<List<Sample>>() {
    @Suppress("DEPRECATION", "UNCHECKED_CAST")
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        show(R.layout.gallery)
        val context = applicationContext
        work = lastNonConfigurationInstance as Work<List<Sample>>? ?: Work<List<Sample>> { samples(context) }.start()
        work?.attach(this)
    }

    override fun onProgress(step: Int, share: Double) = Unit

    override fun onEnd(result: Result<List<Sample>>) {
        val samples = result.getOrElse { return say(explain(it)) }
        val grid = findViewById<GridView>(R.id.pictures)
        grid.adapter = object : BaseAdapter() {
            override fun getCount() = samples.size

            override fun getItem(position: Int): Any = samples[position]

            override fun getItemId(position: Int) = position.toLong()

            override fun getView(position: Int, old: View?, parent: ViewGroup): View =
                (old as ImageView? ?: ImageView(this@GalleryActivity)).apply {
                    val (path, small) = samples[position]
                    setImageBitmap(small)
                    adjustViewBounds = true
                    contentDescription = path.substringAfterLast('/').substringBeforeLast('.')
                }
        }
        grid.setOnItemClickListener { _, _, position, _ ->
            setResult(RESULT_OK, Intent().setData(Uri.parse("asset:/${samples[position].first}")))
            finish()
        }
    }
}

private fun samples(context: Context): List<Sample> {
    val assets = Assets(context)
    val quarter = BitmapFactory.Options().apply { inSampleSize = 4 }
    return assets.samples().map { path ->
        val file = assets.read(path)
        Pair(path, BitmapFactory.decodeByteArray(file, 0, file.size, quarter))
    }
}
