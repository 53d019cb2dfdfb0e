package org.pocketlic.demo

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.view.View
import android.widget.Toast
import java.io.IOException

/** The base of all screens. */
abstract class Screen : Activity() {
    /** Shows a layout, with padding for the system's bars, which newer systems draw over the app. */
    protected fun show(layout: Int) {
        setContentView(layout)
        val root = findViewById<View>(R.id.root)
        val own = intArrayOf(root.paddingLeft, root.paddingTop, root.paddingRight, root.paddingBottom)
        @Suppress("DEPRECATION") // its successor is of API 30
        root.setOnApplyWindowInsetsListener { view, insets ->
            view.setPadding(
                own[0] + insets.systemWindowInsetLeft,
                own[1] + insets.systemWindowInsetTop,
                own[2] + insets.systemWindowInsetRight,
                own[3] + insets.systemWindowInsetBottom,
            )
            insets
        }
        @Suppress("DEPRECATION")
        root.systemUiVisibility = root.systemUiVisibility or View.SYSTEM_UI_FLAG_LAYOUT_STABLE
    }

    protected fun say(text: String) = Toast.makeText(this, text, Toast.LENGTH_LONG).show()

    /** Runs something short off the main thread, then the rest on it; shows errors. */
    protected fun inBackground(task: () -> Unit, then: () -> Unit) = Thread {
        val result = runCatching(task)
        runOnUiThread {
            result.onSuccess { then() }.onFailure { say(getString(R.string.failed, it.message ?: "$it")) }
        }
    }.start()

    /** Starts another app for a result, or shows that there is none. */
    protected fun ask(intent: Intent, code: Int, without: Int) {
        try {
            startActivityForResult(intent, code)
        } catch (_: ActivityNotFoundException) {
            say(getString(without))
        } catch (_: SecurityException) { // permission for the camera was withdrawn
            say(getString(without))
        }
    }

    /** A one-line error message. */
    protected fun explain(failure: Throwable): String = when {
        failure is Cancelled || failure is PlicException && failure.status == PlicException.STOPPED ->
            getString(R.string.cancelled)
        failure is OutOfMemoryError -> getString(R.string.too_large)
        failure is SecurityException || failure is IOException -> getString(R.string.not_readable)
        failure is IllegalArgumentException && failure.message == "not a picture" -> getString(R.string.not_a_picture)
        else -> getString(R.string.failed, failure.message ?: failure.javaClass.simpleName)
    }
}

/** A screen with one [Work]: after a rotation the next screen takes it over; leaving the screen cancels it. */
abstract class WorkScreen<T> : Screen(), Work.Listener<T> {
    protected var work: Work<T>? = null

    @Suppress("OVERRIDE_DEPRECATION")
    override fun onRetainNonConfigurationInstance(): Any? = work

    override fun onDestroy() {
        work?.detach()
        if (isFinishing) work?.cancel()
        super.onDestroy()
    }
}
