package org.pocketlic.demo

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Context
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException

/**
 * Gives other apps access to single files of one folder: the `.plic` file that is shared, and the file that the camera
 * writes its picture to.
 */
class FilesProvider : ContentProvider() {
    override fun onCreate(): Boolean = true

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor =
        ParcelFileDescriptor.open(fileOf(uri), ParcelFileDescriptor.parseMode(mode))

    override fun query(
        uri: Uri, projection: Array<String>?, selection: String?, arguments: Array<String>?, order: String?,
    ): Cursor {
        val file = fileOf(uri)
        val columns = projection ?: arrayOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE)
        val cursor = MatrixCursor(columns, 1)
        cursor.addRow(columns.map {
            when (it) {
                OpenableColumns.DISPLAY_NAME -> file.name
                OpenableColumns.SIZE -> file.length()
                else -> null
            }
        })
        return cursor
    }

    override fun getType(uri: Uri): String = if (fileOf(uri).extension == "plic") PLIC_TYPE else "image/jpeg"

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun update(uri: Uri, values: ContentValues?, selection: String?, arguments: Array<String>?): Int = 0

    override fun delete(uri: Uri, selection: String?, arguments: Array<String>?): Int = 0

    private fun fileOf(uri: Uri): File {
        val context = context ?: throw FileNotFoundException("$uri")
        val name = uri.lastPathSegment
        if (name == null || uri.pathSegments.size != 1 || name.contains('/') || name.startsWith(".")) {
            throw FileNotFoundException("$uri")
        }
        return File(folder(context), name)
    }

    companion object {
        private fun folder(context: Context) = File(context.cacheDir, "lent").apply { mkdirs() }

        fun file(context: Context, name: String) = File(folder(context), name)

        fun uri(context: Context, name: String): Uri = Uri.parse("content://${context.packageName}.files/$name")
    }
}
