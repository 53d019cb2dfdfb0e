package org.pocketlic.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.Rect
import android.os.Bundle
import android.util.AttributeSet
import android.view.KeyEvent
import android.view.MotionEvent
import android.view.View
import android.view.accessibility.AccessibilityEvent
import android.view.accessibility.AccessibilityNodeInfo

/** Two pictures of one size, left and right of a border that is moved by dragging, keys or TalkBack. */
class CompareView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private var left: Bitmap? = null
    private var right: Bitmap? = null
    private var names = Pair("", "")
    private var border = 0.5f
    private val smooth = Paint(Paint.FILTER_BITMAP_FLAG)
    private val line = Paint().apply {
        color = Color.WHITE
        strokeWidth = 2 * resources.displayMetrics.density
    }
    private val label = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.WHITE
        textSize = 14 * resources.displayMetrics.scaledDensity
        setShadowLayer(4 * resources.displayMetrics.density, 0f, 0f, Color.BLACK)
    }
    private val from = Rect()
    private val to = Rect()

    init {
        isFocusable = true
    }

    fun show(left: Bitmap?, leftName: String, right: Bitmap?, rightName: String) {
        this.left = left
        this.right = right
        names = Pair(leftName, rightName)
        describe()
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        val one = left ?: return
        val (w, h) = fit(width, height, one.width, one.height)
        // Small pictures are enlarged without smoothing.
        val scale = minOf(width / w.toFloat(), height / h.toFloat())
        val x = ((width - w * scale) / 2).toInt()
        val y = ((height - h * scale) / 2).toInt()
        to.set(x, y, x + (w * scale).toInt(), y + (h * scale).toInt())
        val at = to.left + (to.width() * border).toInt()
        draw(canvas, one, to.left, if (right == null) to.right else at)
        val other = right ?: return
        draw(canvas, other, at, to.right)
        canvas.drawLine(at.toFloat(), to.top.toFloat(), at.toFloat(), to.bottom.toFloat(), line)
        val baseline = to.top - label.ascent() + line.strokeWidth * 2
        val margin = line.strokeWidth * 4
        canvas.drawText(names.first, to.left + margin, baseline, label)
        canvas.drawText(names.second, to.right - label.measureText(names.second) - margin, baseline, label)
    }

    private fun draw(canvas: Canvas, bitmap: Bitmap, start: Int, end: Int) {
        from.set(0, 0, bitmap.width, bitmap.height)
        canvas.save()
        canvas.clipRect(start, to.top, end, to.bottom)
        canvas.drawBitmap(bitmap, from, to, smooth)
        canvas.restore()
    }

    override fun onTouchEvent(event: MotionEvent): Boolean {
        if (right == null || to.width() == 0) return super.onTouchEvent(event)
        if (event.action == MotionEvent.ACTION_DOWN) parent.requestDisallowInterceptTouchEvent(true)
        if (event.action == MotionEvent.ACTION_UP) performClick()
        move((event.x - to.left) / to.width())
        return true
    }

    override fun performClick(): Boolean {
        super.performClick()
        return true
    }

    override fun onKeyDown(keyCode: Int, event: KeyEvent): Boolean {
        val step = when (keyCode) {
            KeyEvent.KEYCODE_DPAD_LEFT -> -STEP
            KeyEvent.KEYCODE_DPAD_RIGHT -> STEP
            else -> return super.onKeyDown(keyCode, event)
        }
        move(border + step)
        return true
    }

    override fun onInitializeAccessibilityNodeInfo(info: AccessibilityNodeInfo) {
        super.onInitializeAccessibilityNodeInfo(info)
        if (right == null) return
        info.className = "android.widget.SeekBar"
        info.addAction(AccessibilityNodeInfo.AccessibilityAction.ACTION_SCROLL_FORWARD)
        info.addAction(AccessibilityNodeInfo.AccessibilityAction.ACTION_SCROLL_BACKWARD)
    }

    override fun performAccessibilityAction(action: Int, arguments: Bundle?): Boolean {
        val step = when (action) {
            AccessibilityNodeInfo.ACTION_SCROLL_FORWARD -> STEP
            AccessibilityNodeInfo.ACTION_SCROLL_BACKWARD -> -STEP
            else -> return super.performAccessibilityAction(action, arguments)
        }
        move(border + step)
        sendAccessibilityEvent(AccessibilityEvent.TYPE_VIEW_SELECTED)
        return true
    }

    private fun move(to: Float) {
        border = to.coerceIn(0f, 1f)
        describe()
        invalidate()
    }

    private fun describe() {
        contentDescription = when {
            left == null -> resources.getString(R.string.empty)
            right == null -> names.first
            else -> resources.getString(
                R.string.compare_description, names.first, names.second, Math.round(100 * border),
            )
        }
    }

    private companion object {
        const val STEP = 0.1f
    }
}
