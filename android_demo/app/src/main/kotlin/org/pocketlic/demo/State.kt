package org.pocketlic.demo

/** What the main screen shows: a photo and its codings, or a `.plic` file alone. */
enum class Shown { NOTHING, PHOTO, FILE }

/** Which buttons of the main screen are enabled; [encode] cancels while something runs. */
data class Buttons(val choose: Boolean, val encode: Boolean, val keep: Boolean, val compare: Boolean)

/** [source]: something was picked. Cancelled or failed work can be started again. */
fun buttonsOf(running: Boolean, source: Boolean, shown: Shown) = Buttons(
    choose = !running,
    encode = running || source && shown != Shown.FILE,
    keep = !running && shown != Shown.NOTHING,
    compare = shown == Shown.PHOTO,
)

/** What a new screen has to do first. */
enum class Begin { TAKE_OVER, LOAD, READ_INTENT, NOTHING }

/**
 * [work]: the activity before a rotation left its work. [source]: the picked picture is known, also from before the
 * process died. [fresh]: there was no activity before.
 */
fun beginOf(work: Boolean, source: Boolean, fresh: Boolean): Begin = when {
    work -> Begin.TAKE_OVER
    source -> Begin.LOAD
    fresh -> Begin.READ_INTENT
    else -> Begin.NOTHING
}

/** Whether to release pictures at onTrimMemory's [level]. */
fun givesUpPictures(level: Int, running: Boolean): Boolean = level >= TRIM_MEMORY_BACKGROUND && !running

private const val TRIM_MEMORY_BACKGROUND = 40

/** The name of a `.plic` file, from a URI's last segment. */
fun plicNameOf(segment: String?): String {
    val stem = segment.orEmpty().substringAfterLast('/').substringBeforeLast('.')
    return stem.filter { it.isLetterOrDigit() || it in "-_" }.take(40).ifEmpty { "picture" } + ".plic"
}
