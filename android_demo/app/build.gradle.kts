import javax.inject.Inject
import org.gradle.process.ExecOperations

plugins {
    alias(libs.plugins.android)
}

val root: File = rootDir.parentFile

android {
    namespace = "org.pocketlic.demo"
    compileSdk = 36
    ndkVersion = "28.2.13676358"

    defaultConfig {
        applicationId = "org.pocketlic.demo"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        ndk { abiFilters += listOf("arm64-v8a", "armeabi-v7a", "x86_64") }
        // For its headers only: none of the library gets into the app.
        externalNativeBuild { cmake { arguments += "-DANDROID_STL=c++_static" } }
    }

    externalNativeBuild { cmake { path = file("src/main/cpp/CMakeLists.txt") } }

    // The runtime for networks besides the native core.
    flavorDimensions += "runtime"
    productFlavors {
        create("litert") { dimension = "runtime" }
        create("executorch") { dimension = "runtime" }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
            signingConfig = signingConfigs.getByName("debug")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }

    // Runtimes map these from the APK.
    androidResources { noCompress += listOf("tflite", "plic", "pte") }

    // LiteRT finds the vendors' libraries for NPUs as files.
    packaging { jniLibs { useLegacyPackaging = true } }

    // The desktop's library for EngineTest: -Ppocketlic.library=FOLDER; without it, those tests are skipped.
    testOptions.unitTests.all { test ->
        (findProperty("pocketlic.library") as String?)?.let {
            test.systemProperty("java.library.path", it)
            test.systemProperty("pocketlic.root", root.path)
            test.environment("MALLOC_MMAP_THRESHOLD_", "262144") // see MemoryTest
        }
    }
}

dependencies {
    implementation(libs.serialization)
    "litertImplementation"(libs.litert)
    "executorchImplementation"(libs.executorch)
    testImplementation(libs.junit)
    androidTestImplementation(libs.androidx.junit)
    androidTestImplementation(libs.androidx.runner)
}

// The model, its networks for LiteRT, and the sample pictures; needs `pip install .` in the repository, and ExecuTorch's
// programs `pip install '.[executorch]'`.
abstract class ExportTask @Inject constructor(private val commands: ExecOperations) : DefaultTask() {
    @get:InputFiles
    abstract val weights: ConfigurableFileCollection

    @get:Input
    abstract val command: ListProperty<String>

    /** Where among the assets. */
    @get:Input
    abstract val folder: Property<String>

    @get:OutputDirectory
    abstract val assets: DirectoryProperty

    @TaskAction
    fun export() {
        val bundle = assets.get().dir(folder.get()).asFile
        bundle.deleteRecursively()
        commands.exec { commandLine(command.get() + bundle.path) }
    }
}

// The other shipped models, whose files can be opened, and the vectors of the self-test.
abstract class CopyTask @Inject constructor(private val files: FileSystemOperations) : DefaultTask() {
    @get:InputFiles
    abstract val models: ConfigurableFileCollection

    @get:InputFiles
    abstract val vectors: ConfigurableFileTree

    @get:OutputDirectory
    abstract val assets: DirectoryProperty

    @TaskAction
    fun copy() {
        files.sync {
            from(models) { into("models") }
            from(vectors) { into("vectors") }
            into(assets)
        }
    }
}

val python = (findProperty("pocketlic.python") as String?) ?: "${root.path}/.venv/bin/python"

fun exportTask(name: String, target: String, into: String) = tasks.register<ExportTask>(name) {
    weights.from(fileTree(root.resolve("models/weights")))
    command.set(listOf(python, "${root.path}/export.py", "--target", target, "--tile", "512", "--out"))
    folder.set(into)
}
val bundle = exportTask("exportBundle", "android-assets", "bundle")
val programs = exportTask("exportPrograms", "executorch-xnnpack", "programs")
val others = tasks.register<CopyTask>("copyModelsAndVectors") {
    models.from(listOf("cpu-low", "cpu-high", "cpu-psnr-low", "cpu-psnr", "cpu-psnr-high", "strict")
        .map { root.resolve("models/weights/pocketlic-$it.safetensors") })
    vectors.from(root.resolve("tests/vectors")).include("vectors.json", "cpu/*.plic")
}

androidComponents {
    onVariants { variant ->
        variant.sources.assets?.addGeneratedSourceDirectory(bundle, ExportTask::assets)
        variant.sources.assets?.addGeneratedSourceDirectory(others, CopyTask::assets)
        if (variant.flavorName == "executorch") {
            variant.sources.assets?.addGeneratedSourceDirectory(programs, ExportTask::assets)
        }
    }
}
