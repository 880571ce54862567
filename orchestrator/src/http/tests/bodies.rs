//! Bodies that do not come.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let served = Served::start();
    let mut stream = TcpStream::connect(served.base.strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("it is answered").unwrap();
    assert_eq!(str::from_utf8(&answer), Ok("HTTP/1.1 408"));
}
