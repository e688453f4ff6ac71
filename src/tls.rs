//! Which implementation of TLS the programs use: one per process, chosen before anybody asks for a client.

/// What each program does first. Doing it again changes nothing.
pub fn install_provider() {
    // An error means that it is there already.
    let _there = rustls::crypto::ring::default_provider().install_default();
}
