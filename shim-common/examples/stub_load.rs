//! Drives a stub server: PATH calls N, PATH connections N. Prints the mean time of a call.
#![expect(clippy::print_stdout, reason = "a measuring tool prints its figures")]

use std::time::Instant;

use ttrpc::proto::Request;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, what, count] = args.as_slice() else {
        return Err("PATH calls|connections N".into());
    };
    let (address, count) = (format!("unix://{path}"), count.parse::<u32>()?);
    let request = Request {
        service: "containerd.task.v2.Task".into(),
        method: "State".into(),
        payload: b"\x0a\x04test".to_vec(),
        timeout_nano: 5_000_000_000,
        ..Default::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let begin = Instant::now();
        if what == "calls" {
            let client = ttrpc::asynchronous::Client::connect(&address).await?;
            for _ in 0..count {
                client.request(request.clone()).await?;
            }
        } else {
            for _ in 0..count {
                let client = ttrpc::asynchronous::Client::connect(&address).await?;
                client.request(request.clone()).await?;
            }
        }
        println!(
            "{} us per {what}",
            begin.elapsed().as_micros() / u128::from(count.max(1))
        );
        Ok(())
    })
}
