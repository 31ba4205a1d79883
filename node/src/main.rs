//! The murmir command.

fn main() -> std::process::ExitCode {
    murmir::cli::run()
}
