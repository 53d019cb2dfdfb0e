package org.pocketlic.demo

import android.os.Handler
import android.os.Looper
import java.util.concurrent.Executor
import java.util.concurrent.Executors
import java.util.concurrent.atomic.AtomicBoolean

/**
 * Something long off the main thread, where what it reports and its end arrive. One at a time, so that the memory of one
 * that was cancelled is free when the next begins.
 *
 * It outlives the activity that began it: rotated, the new one takes it over with [attach] and is told how it stands.
 */
class Work<T>(private val body: (Work<T>) -> T) {
    private val main = Handler(Looper.getMainLooper())
    private val cancelled = AtomicBoolean()
    private var listener: Listener<T>? = null
    private var share = 0.0
    private var step = 0
    private var end: Result<T>? = null

    interface Listener<T> {
        /** [step] is the text of what it does now, [share] how much of it all is done. */
        fun onProgress(step: Int, share: Double)

        fun onEnd(result: Result<T>)
    }

    fun start(): Work<T> {
        one.execute {
            val result = try {
                if (cancelled.get()) throw Cancelled()
                Result.success(body(this))
            } catch (failure: Throwable) { // memory, too: the app goes on without this picture
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

    /** Says how far it is, and whether to go on. From the work's threads. */
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
