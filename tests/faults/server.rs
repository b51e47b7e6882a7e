//! Database servers that the tests start themselves, each with a folder and a port of its own. They can be killed,
//! switched to read-only mode and given a wrong clock. They come from `mariadbd` on the `PATH` and from the file that
//! `PODLOG_TEST_MYSQLD` names.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions, Executor};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::database::until;
use crate::servers;

/// How long a server may take to come up after a crash, on a busy machine.
const COMING_UP: Duration = Duration::from_secs(60);

/// A user without the right to write while the server is read-only.
const USER: [&str; 3] = [
    "CREATE DATABASE IF NOT EXISTS podlog",
    "CREATE USER IF NOT EXISTS 'podlog'@'%' IDENTIFIED BY 'podlog'",
    "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, INDEX, ALTER, CREATE VIEW, PROCESS, RELOAD, REFERENCES ON *.* TO 'podlog'@'%'",
];

/// A variable of the environment, and its value.
pub(crate) type Variable = (&'static str, String);

/// The program that a server runs.
#[derive(Clone, Debug)]
pub(crate) struct ServerProgram {
    program: PathBuf,
    is_mariadb: bool,
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    program: ServerProgram,
    dir: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    env: Vec<Variable>,
    child: Child,
}

impl ServerProgram {
    fn name(&self) -> &'static str {
        if self.is_mariadb { "mariadb" } else { "mysql" }
    }
}

/// The server programs on this machine; prints which are missing.
pub(crate) fn programs() -> Vec<ServerProgram> {
    let mut programs = Vec::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    match folders.map(|folder| folder.join("mariadbd")).find(|file| file.exists()) {
        Some(program) => programs.push(ServerProgram {
            program,
            is_mariadb: true,
        }),
        None => servers::skip("there is no mariadbd on the path"),
    }
    if let Some(program) = servers::named("PODLOG_TEST_MYSQLD") {
        programs.push(ServerProgram {
            program: program.into(),
            is_mariadb: false,
        });
    }
    programs
}

/// Runs a test on one server of each program at the same time. What is in the environment of each may depend on its
/// name.
pub(crate) fn on_own(options: &[&str], env: impl Fn(&str) -> Vec<Variable>, test: impl AsyncFn(&mut Server)) {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    on_each(|_| options.clone(), env, test);
}

/// The same; the options of each server may depend on its name too.
pub(crate) fn on_each(
    options: impl Fn(&str) -> Vec<String>,
    env: impl Fn(&str) -> Vec<Variable>,
    test: impl AsyncFn(&mut Server),
) {
    crate::database::runtime().block_on(async {
        let one = async |program: ServerProgram| {
            let (options, env) = (options(program.name()), env(program.name()));
            let mut server = Server::start(program, options, env).await;
            test(&mut server).await;
        };
        futures::future::join_all(programs().into_iter().map(one)).await;
    });
}

impl Server {
    async fn start(program: ServerProgram, options: Vec<String>, env: Vec<Variable>) -> Self {
        let dir = tempfile::Builder::new().prefix("podlog-server").tempdir().unwrap();
        let data = dir.path().join("data");
        // Below the range from which the system draws ports, so that nobody else gets it while the server is down.
        let port = loop {
            let port = fastrand::u16(20_000..32_000);
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break port;
            }
        };
        new_data(&program, &data).await;
        let child = spawn(&program, dir.path(), port, &options, &env);
        let server = Self {
            program,
            dir,
            port,
            options,
            env,
            child,
        };
        server.wait().await;
        for statement in USER {
            server.execute(statement).await;
        }
        server
    }

    pub(crate) fn name(&self) -> &'static str {
        self.program.name()
    }

    /// Where tests find it.
    pub(crate) fn url(&self) -> String {
        format!("mysql://podlog:podlog@127.0.0.1:{}/podlog", self.port)
    }

    /// A file in the server's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self) -> MySqlConnectOptions {
        let options = MySqlConnectOptions::new()
            .username("root")
            .ssl_mode(MySqlSslMode::Disabled);
        options.socket(self.file("socket"))
    }

    /// A statement of the server's administrator.
    pub(crate) async fn execute(&self, statement: &str) {
        let mut conn = self.root().connect().await.unwrap();
        conn.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap();
    }

    /// Ends a connection, which may have ended by itself.
    pub(crate) async fn kill(&self, id: i64) {
        let mut conn = self.root().connect().await.unwrap();
        let kill = sqlx::AssertSqlSafe(format!("KILL CONNECTION {id}"));
        conn.execute(kill).await.ok();
    }

    async fn wait(&self) {
        let what = format!("{} answers", self.name());
        until(&what, COMING_UP, async || match self.root().connect().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
                Err(format!(
                    "{error}; {}",
                    log.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
                ))
            }
        })
        .await;
    }

    /// Another server of the same program, with nothing in it.
    pub(crate) async fn another(&self) -> Self {
        Self::start(self.program.clone(), Vec::new(), Vec::new()).await
    }

    /// Kills it with SIGKILL; returns when it has ended.
    pub(crate) async fn stop(&mut self) {
        let id = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(id, Signal::KILL).unwrap();
        self.child.wait().await.unwrap();
    }

    /// Puts a server in the place of one that was stopped: at its address and with its data, but with an identity of
    /// its own.
    pub(crate) async fn replace(&mut self) {
        if self.program.is_mariadb {
            self.options.push("--server-id=2".to_owned());
        } else {
            std::fs::remove_file(self.file("data").join("auto.cnf")).unwrap();
        }
        self.again().await;
    }

    /// `kill -9`, and the same server again as soon as it has gone.
    pub(crate) async fn crash(&mut self) {
        self.stop().await;
        self.again().await;
    }

    async fn again(&mut self) {
        self.child = spawn(&self.program, self.dir.path(), self.port, &self.options, &self.env);
        self.wait().await;
    }
}

/// The folder of a new server: a copy of one that is made once and kept in the target directory.
async fn new_data(program: &ServerProgram, data: &Path) {
    static MAKING: Mutex<()> = Mutex::const_new(());
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-data", program.name()));
    let making = MAKING.lock().await;
    if !kept.exists() {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let made = dir.path().join("data");
        initialise(program, dir.path(), &made).await;
        std::fs::rename(&made, &kept).unwrap();
    }
    drop(making);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&kept)
        .arg(data)
        .status()
        .await
        .unwrap();
    assert!(
        copied.success(),
        "{} could not be copied: is there room?",
        kept.display()
    );
}

/// Makes the folder of a server from nothing.
async fn initialise(program: &ServerProgram, dir: &Path, data: &Path) {
    let mut command = if program.is_mariadb {
        let mut command = Command::new("mariadb-install-db");
        command.args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        command
    } else {
        let mut command = Command::new(&program.program);
        command.args([
            "--no-defaults",
            "--initialize-insecure",
            "--innodb-redo-log-capacity=8M",
        ]);
        command
    };
    command.arg("--user=root").arg(format!("--datadir={}", data.display()));
    command
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("init.log")).unwrap());
    let status = command.status().await.unwrap();
    let said = || std::fs::read_to_string(dir.join("init.log")).unwrap();
    assert!(status.success(), "{program:?}: {}", said());
}

fn spawn(program: &ServerProgram, dir: &Path, port: u16, options: &Vec<String>, env: &[Variable]) -> Child {
    let file = |name: &str| dir.join(name).display().to_string();
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    let mut command = Command::new(&program.program);
    command
        .arg("--no-defaults")
        .arg("--user=root")
        .arg("--bind-address=127.0.0.1");
    command.arg(format!("--port={port}"));
    command.arg(format!("--datadir={}", file("data")));
    // A server that starts deletes the temporary tables it finds, also those of a server that shares the directory.
    command.arg(format!("--tmpdir={}", file("data")));
    command.arg(format!("--socket={}", file("socket")));
    command.arg(format!("--pid-file={}", file("pid")));
    command.arg("--innodb-buffer-pool-size=32M");
    // What is written outlives the process, which is all that dies here; the disk need not be waited for.
    command.args(["--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0"]);
    // Host names would match users that the distribution creates.
    command.arg("--skip-name-resolve");
    if !program.is_mariadb {
        command.args(["--mysqlx=OFF", "--secure-file-priv=", "--performance-schema=OFF"]);
        command.arg("--innodb-redo-log-capacity=8M");
    }
    command.args(options).envs(env.iter().cloned());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().unwrap()
}
