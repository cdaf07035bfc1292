//! Holds a conversation on the terminal, streaming each answer; Ctrl-D ends it.
//!
//! usage: cargo run --example chat [MODEL]
//!
//! `TRUNKLINE_TARGET` names the router (127.0.0.1:50051 if unset), `TRUNKLINE_API_KEY` the key.

use std::error::Error;
use std::io::{Write, stdin, stdout};

use trunkline::{Client, user_message, v1};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::from_env()?;
    let model = std::env::args().nth(1).unwrap_or_default();
    let mut request = v1::GenerateRequest {
        model,
        ..Default::default()
    };
    print!("> ");
    stdout().flush()?;
    for line in stdin().lines() {
        request.messages.push(user_message(line?));
        match turn(&client, request.clone()).await {
            Ok(answer) => request.messages.push(answer),
            Err(error) => {
                // The question stays unanswered; the next turn starts clean.
                request.messages.pop();
                eprintln!("{error}");
            }
        }
        print!("> ");
        stdout().flush()?;
    }
    Ok(())
}

/// Prints the next answer as it is written and gives it for the history.
async fn turn(
    client: &Client,
    request: v1::GenerateRequest,
) -> Result<v1::Message, Box<dyn Error>> {
    let mut stream = client.stream(request).await?;
    let mut text = stream.text();
    while let Some(piece) = text.next().await {
        print!("{}", piece?);
        stdout().flush()?;
    }
    println!();
    Ok(stream.so_far())
}
