//! supervisorctl: see [`process_supervisor::cli`].

fn main() -> std::process::ExitCode {
    process_supervisor::tls::install_provider();
    process_supervisor::cli::run(std::env::args_os())
}
