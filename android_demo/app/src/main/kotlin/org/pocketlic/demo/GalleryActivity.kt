package org.pocketlic.demo

import android.content.Intent
import android.graphics.BitmapFactory
import android.net.Uri
import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.widget.BaseAdapter
import android.widget.GridView
import android.widget.ImageView

/** The sample pictures among the assets; the one that is touched is the result. */
class GalleryActivity : Screen() {
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        show(R.layout.gallery)
        val samples = Assets(this).samples()
        val grid = findViewById<GridView>(R.id.pictures)
        grid.adapter = object : BaseAdapter() {
            override fun getCount() = samples.size

            override fun getItem(position: Int): Any = samples[position]

            override fun getItemId(position: Int) = position.toLong()

            override fun getView(position: Int, old: View?, parent: ViewGroup): View =
                (old as ImageView? ?: ImageView(this@GalleryActivity)).apply {
                    val file = Assets(context).read(samples[position])
                    val small = BitmapFactory.Options().apply { inSampleSize = 4 }
                    setImageBitmap(BitmapFactory.decodeByteArray(file, 0, file.size, small))
                    adjustViewBounds = true
                    contentDescription = samples[position].substringAfterLast('/').substringBeforeLast('.')
                }
        }
        grid.setOnItemClickListener { _, _, position, _ ->
            setResult(RESULT_OK, Intent().setData(Uri.parse("asset:/${samples[position]}")))
            finish()
        }
    }
}
