#include "services/gateway/http/server.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <map>
#include <thread>
#include <utility>

#include "services/gateway/http/connection.h"
#include "services/runtime/mutex.h"

namespace tandem::gateway {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {
constexpr int kBacklog = 4096;
}  // namespace

struct HttpServer::Impl {
  explicit Impl(const HttpLimits& l)
      : io(static_cast<int>(l.threads)),
        acceptor(asio::make_strand(io)),
        retry(acceptor.get_executor()) {}

  asio::awaitable<void> AcceptLoop();
  // On the acceptor's strand, so that each connection is told or was never taken.
  void StopAccepting() TANDEM_EXCLUDES(mu);
  asio::awaitable<void> Serve(std::shared_ptr<Connection> connection, uint64_t id, bool refused);
  void TellAll(void (Connection::*what)()) TANDEM_EXCLUDES(mu);  // each on its strand

  asio::io_context io;
  tcp::acceptor acceptor;
  asio::steady_timer retry;
  std::shared_ptr<const Connection::Shared> shared;
  std::vector<std::thread> threads;
  mutable Mutex mu;
  CondVar changed;                              // `accepting`, or `open` is empty
  bool accepting TANDEM_GUARDED_BY(mu) = true;  // false: nothing is added to `open` any more
  uint64_t next_id TANDEM_GUARDED_BY(mu) = 0;
  std::map<uint64_t, std::weak_ptr<Connection>> open TANDEM_GUARDED_BY(mu);
};

asio::awaitable<void> HttpServer::Impl::AcceptLoop() {
  for (;;) {
    error_code error;
    tcp::socket socket = co_await acceptor.async_accept(
        asio::make_strand(io), asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted || error == asio::error::bad_descriptor) co_return;
    if (error) {  // out of descriptors, say: the connection waits in the backlog
      retry.expires_after(std::chrono::milliseconds(50));
      co_await retry.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    socket.set_option(tcp::no_delay(true), error);
    auto connection = std::make_shared<Connection>(std::move(socket), shared);
    uint64_t id = 0;
    bool refused = false;
    {
      MutexLock lock(mu);
      if (!accepting) co_return;
      id = next_id++;
      refused = open.size() >= shared->limits.max_connections;
      open[id] = connection;
    }
    asio::any_io_executor executor = connection->executor();
    asio::awaitable<void> serve = Serve(connection, id, refused);
    asio::co_spawn(executor, std::move(serve), asio::detached);
  }
}

void HttpServer::Impl::StopAccepting() {
  error_code ignored;
  acceptor.close(ignored);
  {
    MutexLock lock(mu);
    accepting = false;
    changed.NotifyAll();
  }
  TellAll(&Connection::CloseWhenIdle);
}

asio::awaitable<void> HttpServer::Impl::Serve(std::shared_ptr<Connection> connection, uint64_t id,
                                              bool refused) {
  co_await connection->Run(refused);
  MutexLock lock(mu);
  open.erase(id);
  if (open.empty()) changed.NotifyAll();
}

void HttpServer::Impl::TellAll(void (Connection::*what)()) {
  MutexLock lock(mu);
  for (auto& [id, weak] : open) {
    if (auto connection = weak.lock())
      asio::post(connection->executor(), [connection, what] { ((*connection).*what)(); });
  }
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const std::string& listen, const HttpLimits& limits, HttpHandler handler,
    HttpErrorBody error_body, std::function<std::string()> new_request_id) {
  const size_t colon = listen.rfind(':');
  uint32_t port = 0;
  error_code error;
  const asio::ip::address address =
      asio::ip::make_address(listen.substr(0, colon == std::string::npos ? 0 : colon), error);
  if (error || !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("listen: '", listen, "' is not ADDRESS:PORT"));
  }
  auto impl = std::make_unique<Impl>(limits);
  impl->shared = std::make_shared<const Connection::Shared>(Connection::Shared{
      limits, std::move(handler), std::move(error_body), std::move(new_request_id)});
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(port));
  impl->acceptor.open(endpoint.protocol(), error);
  if (!error) impl->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) impl->acceptor.bind(endpoint, error);
  if (!error) impl->acceptor.listen(kBacklog, error);
  if (error)
    return absl::UnavailableError(absl::StrCat("cannot listen on ", listen, ": ", error.message()));
  asio::any_io_executor executor = impl->acceptor.get_executor();
  asio::awaitable<void> loop = impl->AcceptLoop();
  asio::co_spawn(executor, std::move(loop), asio::detached);
  for (uint32_t i = 0; i < limits.threads; ++i)
    impl->threads.emplace_back([io = &impl->io] { io->run(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::~HttpServer() {
  Drain(Duration());
  impl_->TellAll(&Connection::Cut);
  impl_->io.stop();
  for (std::thread& thread : impl_->threads) thread.join();
}

int HttpServer::port() const {
  error_code error;
  return impl_->acceptor.local_endpoint(error).port();
}

uint32_t HttpServer::connections() const {
  MutexLock lock(impl_->mu);
  return static_cast<uint32_t>(impl_->open.size());
}

bool HttpServer::Drain(Duration timeout) {
  asio::post(impl_->acceptor.get_executor(), [impl = impl_.get()] { impl->StopAccepting(); });
  MutexLock lock(impl_->mu);
  while ((impl_->accepting || !impl_->open.empty()) && timeout > Duration()) {
    if (!impl_->changed.WaitFor(lock, std::chrono::nanoseconds(timeout.nanoseconds()))) break;
  }
  return !impl_->accepting && impl_->open.empty();
}

}  // namespace tandem::gateway
