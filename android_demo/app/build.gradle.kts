plugins {
    alias(libs.plugins.android)
}

val root = rootDir.parentFile
val assets = layout.buildDirectory.dir("pocketlic/assets")
val programAssets = layout.buildDirectory.dir("pocketlic/executorch")

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
        // The core needs no standard library of C++.
        externalNativeBuild { cmake { arguments += "-DANDROID_STL=none" } }
    }

    externalNativeBuild { cmake { path = file("src/main/cpp/CMakeLists.txt") } }

    // What runs the networks besides the native core.
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

    sourceSets.getByName("main").assets.srcDir(assets)
    sourceSets.getByName("executorch").assets.srcDir(programAssets)

    // The desktop's library for EngineTest: -Ppocketlic.library=FOLDER; without it, those tests are skipped.
    testOptions.unitTests.all { test ->
        (findProperty("pocketlic.library") as String?)?.let {
            test.systemProperty("java.library.path", it)
            test.systemProperty("pocketlic.root", root.path)
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
// programs `pip install '.[executorch]'`. The vectors beside them are those that the self-test runs.
val python = (findProperty("pocketlic.python") as String?) ?: "${root.path}/.venv/bin/python"

fun exportTask(name: String, target: String, folder: Provider<Directory>) = tasks.register<Exec>(name) {
    inputs.dir(root.resolve("models/weights"))
    outputs.dir(folder)
    workingDir = root
    commandLine(python, "export.py", "--target", target, "--tile", "512", "--out", folder.get().asFile.path)
}
val bundle = exportTask("exportBundle", "android-assets", assets.map { it.dir("bundle") })
val programs = exportTask("exportPrograms", "executorch-xnnpack", programAssets.map { it.dir("programs") })
val vectors = tasks.register<Copy>("copyVectors") {
    from(root.resolve("tests/vectors")) { include("vectors.json", "cpu/*.plic") }
    into(assets.map { it.dir("vectors") })
}
tasks.named("preBuild") { dependsOn(bundle, vectors) }
tasks.matching { it.name.startsWith("preExecutorch") }.configureEach { dependsOn(programs) }
