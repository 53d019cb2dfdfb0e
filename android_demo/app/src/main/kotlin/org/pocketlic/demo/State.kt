package org.pocketlic.demo

/** What the main screen shows: a photo and its codings, or a `.plic` file alone. */
enum class Shown { NOTHING, PHOTO, FILE }

/** What can be pressed on the main screen; [encode] is the button that cancels while something runs. */
data class Buttons(val choose: Boolean, val encode: Boolean, val keep: Boolean, val compare: Boolean)

/** [source]: there is something that was picked. What was cancelled or failed can be tried again. */
fun buttonsOf(running: Boolean, source: Boolean, shown: Shown) = Buttons(
    choose = !running,
    encode = running || source && shown != Shown.FILE,
    keep = !running && shown != Shown.NOTHING,
    compare = shown == Shown.PHOTO,
)

/** What a screen has to do that was just made. */
enum class Begin { TAKE_OVER, LOAD, READ_INTENT, NOTHING }

/**
 * [work]: an activity before it, rotated, left its work. [source]: what was picked is known, from before the process
 * died. [fresh]: there was no activity before.
 */
fun beginOf(work: Boolean, source: Boolean, fresh: Boolean): Begin = when {
    work -> Begin.TAKE_OVER
    source -> Begin.LOAD
    fresh -> Begin.READ_INTENT
    else -> Begin.NOTHING
}

/** Whether pictures are given up when the system says, by onTrimMemory's [level], that it is short of memory. */
fun givesUpPictures(level: Int, running: Boolean): Boolean = level >= TRIM_MEMORY_BACKGROUND && !running

private const val TRIM_MEMORY_BACKGROUND = 40

/** A name for the `.plic` file of what a URI's last segment names. */
fun plicNameOf(segment: String?): String {
    val stem = segment.orEmpty().substringAfterLast('/').substringBeforeLast('.')
    return stem.filter { it.isLetterOrDigit() || it in "-_" }.take(40).ifEmpty { "picture" } + ".plic"
}
