//! Step libraries from addresses, on their way into the depot.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpListener,
};

use model::{Digest, lock::Lock};

use crate::world::World;

/// Serves the same bytes to whoever asks, for as long as the test lasts.
fn serve(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let _length = connection.read(&mut [0; 4096]).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
            connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(bytes)).unwrap();
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn what_the_lock_file_names_is_fetched_once_and_lies_in_the_depot() {
    let world = World::new();
    world.add_project("shop", "libraries: { hosts: [127.0.0.1] }\n");
    world.start().await;
    let server = serve(b"an archive");
    let (sound, changed) = (format!("{server}/deploy@1"), format!("{server}/deploy@2"));
    let digest = Digest::of(b"an archive");
    let locked = [(sound, digest), (changed.clone(), Digest::of(b"another")), ("stdlib".to_owned(), Digest::of(b"x"))];
    world.write("Ottofile", "pipeline { }\n");
    world.write("otto.lock", &Lock::of_libraries(BTreeMap::from(locked)).text());
    world.commit();
    world.push(&["main"]).await;
    let trigger = world.triggers().await.remove(0);
    assert_eq!(world.blobs.get(&digest).await.unwrap(), b"an archive".as_slice());
    let missing = trigger.missing_libraries;
    assert_eq!(missing.keys().collect::<Vec<_>>(), [&changed]);
    assert!(missing[&changed].contains(&format!("it has changed: it is {digest}")), "{missing:?}");
    assert!(!world.blobs.has(&Digest::of(b"another")).await.unwrap());
    world.end().await;
}

#[tokio::test]
async fn a_commit_cannot_have_the_forge_ask_its_own_network() {
    let world = World::with_forge().await;
    let address = format!("{}/deploy@1", serve(b"a secret of this network"));
    let secret = Digest::of(b"a secret of this network");
    world.write("Ottofile", "pipeline { }\n");
    world.write("otto.lock", &Lock::of_libraries(BTreeMap::from([(address.clone(), secret)])).text());
    world.commit();
    world.push(&["main"]).await;
    let trigger = world.triggers().await.remove(0);
    assert!(trigger.missing_libraries[&address].contains("127.0.0.1, which is not of the public internet"), "{trigger:?}");
    assert!(!world.blobs.has(&secret).await.unwrap());
    world.end().await;
}
