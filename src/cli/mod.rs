//! Command line: wiring only.

mod admin;
mod all_in_one;
mod check_config;
mod check_health;
mod clock;
mod exit;
mod explain;
mod journal;
mod manual;
mod memory;
mod node;
mod operator;
mod output;
mod proxy;
mod queries;
mod quotas;
mod ranking;
mod records;
mod replay;
mod rule;
mod signals;
mod suggest;
mod system;
mod text;
mod top;

use clap::{Parser, Subcommand, error::ErrorKind as Usage};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use exit::{BAD_INPUT, FAILED};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 64 bad command line or configuration, 1 failure.
Signals: SIGTERM, SIGINT and SIGQUIT finish what is in flight, then end; a second one ends at once. SIGHUP reads the
configuration of `weir proxy` again, and is otherwise ignored, as SIGUSR1 and SIGUSR2 are.
Environment: WEIR_LOG is a log filter such as `info` or `warn,weir=debug`;
${NAME} inside the configuration reads the variable NAME.";

/// Weighs PromQL queries before the database sees them.
///
/// Without a command it runs the proxy and a storage node in one process, and stores its own metrics there.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    all_in_one: all_in_one::AllInOne,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stand in front of databases: price every query, admit, queue or refuse it, forward it.
    ///
    /// SIGHUP, `POST /-/reload` on the admin address and a change of the file read the configuration again.
    Proxy {
        /// The configuration; `weir check-config --print-default` prints one to start from.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Folder of state between runs: learned costs, rules set at run time, the journal of queries.
        #[arg(long, value_name = "DIR", default_value = "./weir-data")]
        data: PathBuf,
    },
    /// Store samples and answer queries over them, without limits on the sum of the queries' costs.
    Node(node::NodeArgs),
    /// Print the cost of a query, how each number is known, and whether it would be admitted.
    Explain(explain::Explain),
    /// List the queries of a running Weir that wait or run.
    Queries(queries::Queries),
    /// Stop queries of a running Weir, waiting or running.
    ///
    /// Their clients get 422 `weir-killed` with the reason, or a connection that breaks off where the answer has begun.
    Kill(queries::Kill),
    /// Watch budgets, lanes, queue and the heaviest queries of a running Weir.
    Top(top::Top),
    /// Set, list and take away rules against single queries of a running Weir.
    #[command(subcommand)]
    Rule(rule::Rule),
    /// Print the verdicts of a configuration on queries that ran: on those of a journal, or of another program's log.
    ///
    /// Limits on one query are replayed. Rates, queues and budgets in flight depend on the moment and are not.
    Replay(replay::ReplayArgs),
    /// Suggest limits for each tenant from the cost of its queries, as a patch to the configuration.
    ///
    /// The patch goes to standard output. Its comments name the queries that each limit would have refused.
    Suggest(suggest::SuggestArgs),
    /// Ask a running Weir whether it is healthy: exit code 0 if so. For health checks of containers.
    CheckHealth(check_health::CheckHealth),
    /// Check a configuration file and report every mistake with its line.
    ///
    /// Prints nothing else than `FILE: good` on success. Warnings go to standard error and change no exit code.
    CheckConfig {
        /// The file to check.
        #[arg(required_unless_present = "print_default")]
        file: Option<PathBuf>,
        /// Print a complete, commented configuration to start from.
        #[arg(long, conflicts_with = "file")]
        print_default: bool,
        /// Replay this journal too, and fail with exit code 1 if a query that was answered would be refused.
        #[arg(long, value_name = "JOURNAL", requires = "file")]
        replay: Option<PathBuf>,
    },
    /// Print the script by which a shell completes commands and options: `weir completions bash >
    /// /etc/bash_completion.d/weir`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page: `weir man | man -l -`.
    Man {
        /// The command; without it, the page of `weir`.
        command: Option<String>,
    },
}

/// Runs the command named on the command line.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs `args`, the first of which is the name of the program.
fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let code = match error.kind() {
                Usage::DisplayHelp | Usage::DisplayVersion => 0,
                _ => BAD_INPUT,
            };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(FAILED) };
        }
    };
    let Some(command) = args.command else { return all_in_one::run(args.all_in_one) };
    match command {
        Command::Node(args) => node::run(&args),
        Command::Proxy { config, data } => proxy::run(&config, data),
        Command::Explain(args) => explain::run(&args),
        Command::Queries(args) => queries::list(&args),
        Command::Kill(args) => queries::kill(&args),
        Command::Top(args) => top::run(&args),
        Command::Rule(rule) => rule::run(&rule),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { command } => manual::man(command.as_deref()),
        Command::CheckHealth(args) => check_health::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Suggest(args) => suggest::run(&args),
        Command::CheckConfig { file: Some(file), replay, .. } => check_config::run(&file, replay.as_deref()),
        Command::CheckConfig { file: None, .. } => check_config::print_default(),
    }
}
