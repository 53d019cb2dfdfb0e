package org.pocketlic.demo

import android.content.Context
import android.os.Bundle
import android.widget.Button
import android.widget.TextView

/** The known verdicts on each way to run the networks; null stands for the native core. */
typealias VerdictList = List<Pair<Delegate?, Verdict>>

/** Runs the conformance vectors on everything that can run the networks, and shows which are exact. */
class SelfTestActivity : WorkScreen<VerdictList>() {
    @Suppress("DEPRECATION", "UNCHECKED_CAST")
    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        show(R.layout.self_test)
        findViewById<Button>(R.id.run).setOnClickListener { if (work?.running == true) work?.cancel() else begin() }
        work = lastNonConfigurationInstance as Work<VerdictList>?
        work?.attach(this) ?: begin()
    }

    private fun begin() {
        val context = applicationContext
        work = Work<VerdictList> { work -> testAll(context, work) }.also {
            it.start()
            it.attach(this)
        }
    }

    override fun onProgress(step: Int, share: Double) {
        findViewById<Button>(R.id.run).setText(R.string.cancel)
        val total = delegates(this).size + 1
        findViewById<TextView>(R.id.verdicts).text =
            getString(R.string.running, (share * total).toInt().coerceAtMost(total - 1) + 1, total)
    }

    override fun onEnd(result: Result<VerdictList>) {
        findViewById<Button>(R.id.run).setText(R.string.run)
        findViewById<TextView>(R.id.verdicts).text = result.fold(
            { list ->
                val verdicts = list.associate { (delegate, verdict) -> (delegate?.name ?: NATIVE_CORE) to verdict }
                val used = choose(list.mapNotNull { it.first }, verdicts)?.name ?: NATIVE_CORE
                verdicts.entries.joinToString("\n\n") { (name, verdict) -> "$name\n${words(verdict)}" } + "\n\n" +
                    getString(R.string.used, used)
            },
            ::explain,
        )
    }

    private fun words(verdict: Verdict): String = when (verdict) {
        is Verdict.Exact -> getString(R.string.verdict_exact, verdict.vectors)
        is Verdict.Different ->
            getString(R.string.verdict_different, verdict.different.size, verdict.vectors, verdict.different.first())
        is Verdict.Unavailable -> getString(R.string.verdict_unavailable, verdict.reason)
    }
}

private fun testAll(context: Context, work: Work<VerdictList>): VerdictList {
    val assets = Assets(context)
    val weights = assets.weights()
    val all = listOf<Delegate?>(null) + delegates(context)
    return all.mapIndexed { index, delegate ->
        val engine = openEngine(weights, delegate, threads())
        val verdict = engine.fold(
            { opened ->
                opened.use {
                    val (folder, vectors) = assets.vectors(it.modelId)
                    val read = { vector: Vector -> assets.read("vectors/$folder/${vector.name}.plic") }
                    val found = selfTest(it, vectors, read) { done ->
                        work.report(R.string.self_test, (index + done / vectors.size.toDouble()) / all.size)
                    }
                    (found ?: throw Cancelled()).also { known ->
                        if (delegate != null) Verdicts(context, it.modelId).keep(delegate.name, known)
                    }
                }
            },
            { Verdict.Unavailable(it.message.orEmpty()) },
        )
        Pair(delegate, verdict)
    }
}
