//! A line between an agent and the bus that can be silent: nothing is refused or closed, as when a cable is pulled, and what was said meanwhile
//! arrives afterwards.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use serde_json::Value;

/// The line. Its threads end with the connections, or with the test.
pub(crate) struct Wire {
    address: SocketAddr,
    silence: Arc<Silence>,
}

#[derive(Default)]
struct Silence {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Silence {
    /// Waits until something may be said.
    fn wait(&self) {
        let is = self.is.lock().unwrap();
        drop(self.changed.wait_while(is, |is| *is).unwrap());
    }

    fn set(&self, silent: bool) {
        *self.is.lock().unwrap() = silent;
        self.changed.notify_all();
    }
}

impl Wire {
    /// A line to the bus of the services whose data will be in this folder.
    pub(crate) fn to_bus(data: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let wire = Self { address: listener.local_addr().unwrap(), silence: Arc::default() };
        let (silence, ports) = (wire.silence.clone(), data.join("ports.json"));
        thread::spawn(move || {
            for near in listener.incoming() {
                // Who connects before the bus is there tries again.
                if let (Ok(near), Some(far)) = (near, bus(&ports)) {
                    carry(&near, &far, &silence);
                    carry(&far, &near, &silence);
                }
            }
        });
        wire
    }

    /// Where an agent connects.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on nothing arrives.
    pub(crate) fn silence(&self) {
        self.silence.set(true);
    }

    /// Everything arrives, also what was held up.
    pub(crate) fn speak(&self) {
        self.silence.set(false);
    }
}

fn bus(ports: &PathBuf) -> Option<TcpStream> {
    let ports: Value = serde_json::from_slice(&fs::read(ports).ok()?).ok()?;
    TcpStream::connect((Ipv4Addr::LOCALHOST, u16::try_from(ports["nats"].as_u64()?).ok()?)).ok()
}

fn carry(from: &TcpStream, to: &TcpStream, silence: &Arc<Silence>) {
    let (mut from, mut to, silence) = (from.try_clone().unwrap(), to.try_clone().unwrap(), silence.clone());
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            silence.wait();
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        silence.wait();
        let (_gone, _too) = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    });
}
