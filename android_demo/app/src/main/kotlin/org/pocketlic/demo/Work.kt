package org.pocketlic.demo

import android.os.Handler
import android.os.Looper
import java.util.concurrent.Executor
import java.util.concurrent.Executors
import java.util.concurrent.atomic.AtomicBoolean

/**
 * Long work off the main thread; its reports and its end arrive on the main thread. Only one runs at a time, so that
 * the memory of cancelled work is free when the next begins.
 *
 * It outlives the activity that began it: after a rotation, the new activity calls [attach] and gets the current state.
 */
class Work<T>(private val body: (Work<T>) -> T) {
    private val main = Handler(Looper.getMainLooper())
    private val cancelled = AtomicBoolean()
    private var listener: Listener<T>? = null
    private var share = 0.0
    private var step = 0
    private var end: Result<T>? = null

    interface Listener<T> {
        /** [step]: text of the current step. [share]: fraction of the whole work that is done. */
        fun onProgress(step: Int, share: Double)

        fun onEnd(result: Result<T>)
    }

    fun start(): Work<T> {
        one.execute {
            val result = try {
                if (cancelled.get()) throw Cancelled()
                Result.success(body(this))
            } catch (failure: Throwable) { // also out of memory: the app goes on without this picture
                Result.failure(failure)
            }
            main.post {
                end = result
                listener?.onEnd(result)
            }
        }
        return this
    }

    fun attach(to: Listener<T>) {
        listener = to
        end?.let(to::onEnd) ?: to.onProgress(step, share)
    }

    fun detach() {
        listener = null
    }

    fun cancel() = cancelled.set(true)

    val running get() = end == null

    /** Reports progress, and returns whether to go on. Called on the work's threads. */
    fun report(step: Int, share: Double): Boolean {
        main.post {
            this.step = step
            this.share = share
            if (end == null) listener?.onProgress(step, share)
        }
        return !cancelled.get()
    }

    private companion object {
        val one: Executor = Executors.newSingleThreadExecutor { Thread(it, "work") }
    }
}
