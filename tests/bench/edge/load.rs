//! A closed loop of callers, from the thread that measures.

use std::time::Duration;

use clipd::clock::Clock;
use clipd::grpc::proto::EmbedRequest;

use crate::server::{Client, Server, cpu_of_others};

#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Calls in flight, on all connections together.
    pub(crate) callers: usize,
    pub(crate) span: Duration,
}

impl Load {
    /// Calls per second, and CPU seconds of the server for each.
    pub(crate) fn run(self, server: &Server, clients: &[Client], request: &EmbedRequest) -> (f64, f64) {
        let (clock, cpu) = (Clock::start(), cpu_of_others());
        let calls = server.here.block_on(async {
            let callers = (0..self.callers).map(|caller| {
                let mut client = clients[caller % clients.len()].clone();
                async move {
                    let mut calls = 0;
                    while clock.now().since(Default::default()) < self.span {
                        client.embed(request.clone()).await.expect("it is answered");
                        calls += 1;
                    }
                    calls
                }
            });
            futures_util::future::join_all(callers).await.into_iter().sum::<i32>()
        });
        let elapsed = clock.now().since(Default::default());
        (f64::from(calls) / elapsed.as_secs_f64(), (cpu_of_others() - cpu).as_secs_f64() / f64::from(calls))
    }
}
