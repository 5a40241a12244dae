// What workers' heartbeats say of their devices' time, asked back over HTTP and gRPC.

#include <boost/json.hpp>
#include <limits>

#include "services/ctl/http_client.h"
#include "tests/integration/router_support.h"

namespace tandem::test {
namespace {

namespace json = boost::json;

class RouterTco : public RouterTest {
 protected:
  ctl::HttpReply Get(const std::string& target) const {
    const auto reply = ctl::HttpGet(absl::StrCat("127.0.0.1:", router_->admin_port()), target,
                                    Duration::Seconds(kDeadline.count()));
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.value_or(ctl::HttpReply());
  }
  // Asks until the router's answer satisfies `condition`.
  template <typename Fn>
  json::object AwaitTco(const char* what, Fn&& condition) {
    const Instant end = time_.Now() + Duration::Seconds(kDeadline.count());
    for (;;) {
      const ctl::HttpReply reply = Get("/admin/v1/tco?window=60s");
      if (reply.status == 200) {
        json::object told = json::parse(reply.body).as_object();
        if (condition(told)) return told;
      }
      if (time_.Now() > end) {
        ADD_FAILURE() << "waited for " << what << "; last: " << reply.body;
        return {};
      }
    }
  }
};

v1::Registration Priced(v1::Registration worker, double dollars_per_hour) {
  worker.mutable_dollars_per_hour()->set_value(dollars_per_hour);
  worker.mutable_dollars_per_hour()->set_mark("stated");
  worker.mutable_dollars_per_hour()->set_source("a test");
  return worker;
}

void AddEntry(v1::Heartbeat& heartbeat, const char* stage, const char* state, const char* cause,
              double seconds) {
  v1::LedgerEntry& entry = *heartbeat.add_ledger();
  entry.set_stage(stage);
  entry.set_state(state);
  entry.set_cause(cause);
  entry.set_seconds(seconds);
  heartbeat.set_elapsed_seconds(heartbeat.elapsed_seconds() + seconds);
}

size_t Workers(const json::object& told) { return told.at("workers").as_array().size(); }

TEST_F(RouterTco, HeartbeatsBecomeDollarsByPoolAndStage) {
  StartRouter();
  const ctl::HttpReply none = Get("/admin/v1/tco?window=60s");
  EXPECT_EQ(none.status, 503);
  EXPECT_NE(none.body.find("0 workers sent 0 heartbeats"), std::string::npos) << none.body;
  FakeWorker attention(address(), Priced(WorkerNamed("a-1", "pa"), 36));
  FakeWorker ffn(address(), WorkerNamed("f-1", "f"));
  ASSERT_TRUE(attention.AwaitRegistered().ok());
  ASSERT_TRUE(ffn.AwaitRegistered().ok());
  v1::Heartbeat beat;
  AddEntry(beat, "prefill", "busy", "", 1);
  AddEntry(beat, "attention", "busy", "", 3);
  AddEntry(beat, "shared", "stall", "handoff", 2);
  AddEntry(beat, "shared", "idle", "no_work", 4);
  beat.set_prompts_total(2);
  beat.set_prompt_tokens_total(500);
  beat.set_tokens_total(1000);
  attention.SendHeartbeat(beat);
  v1::Heartbeat idle;
  AddEntry(idle, "ffn", "idle", "starved", 10);
  ffn.SendHeartbeat(idle);

  const json::object told =
      AwaitTco("two workers", [](const json::object& t) { return Workers(t) == 2; });
  ASSERT_FALSE(told.empty());
  const json::value& totals = told.at("totals");
  EXPECT_NEAR(totals.at("input").at("dollars").to_number<double>(), 0.025, 1e-9);
  EXPECT_EQ(totals.at("tokens_in").to_number<uint64_t>(), 500u);
  EXPECT_EQ(totals.at("tokens_out").to_number<uint64_t>(), 1000u);
  // The FFN worker told no price, and did nothing.
  EXPECT_TRUE(totals.at("unattributed").at("dollars").is_null());
  EXPECT_NEAR(totals.at("unattributed").at("unpriced_seconds").to_number<double>(), 10, 1e-9);
  EXPECT_TRUE(told.at("emulated").is_null());

  grpc::ClientContext context;
  v1::TcoRequest request;
  request.set_window_seconds(60);
  v1::TcoReply reply;
  ASSERT_TRUE(Admin()->Tco(&context, request, &reply).ok());
  ASSERT_EQ(reply.devices_size(), 2);
  EXPECT_EQ(reply.devices(0).worker_id(), "a-1");
  EXPECT_DOUBLE_EQ(reply.devices(0).elapsed_seconds(), 10);
  EXPECT_DOUBLE_EQ(reply.slo_tpot_seconds(), 0.05);
  EXPECT_FALSE(reply.devices(1).dollars_per_hour().has_value());
}

TEST_F(RouterTco, ALostWorkersDeviceIsDownAndStaysInTheWindow) {
  StartRouter();
  FakeWorker worker(address(), Priced(WorkerNamed("w-1", "paf"), 36));
  ASSERT_TRUE(worker.AwaitRegistered().ok());
  v1::Heartbeat beat;
  AddEntry(beat, "attention", "busy", "", 5);
  worker.SendHeartbeat(beat);
  AwaitTco("an account", [](const json::object& t) { return Workers(t) == 1; });
  worker.Cut();
  const json::object told = AwaitTco("a lost worker that is down", [](const json::object& t) {
    const json::value& lost = t.at("workers").at(0);
    return lost.at("lost").as_bool() && lost.at("elapsed_seconds").to_number<double>() > 5;
  });
  ASSERT_FALSE(told.empty());
  EXPECT_GT(told.at("rows").at(0).at("idle_seconds").at("down").to_number<double>(), 0);
}

TEST_F(RouterTco, BadQuestionsAndHostileHeartbeatsAreRefusedWithTheirReason) {
  StartRouter();
  for (const char* query : {"window=-1s", "window=never", "window=2h", "pool=ffn"}) {
    const ctl::HttpReply reply = Get(absl::StrCat("/admin/v1/tco?", query));
    EXPECT_EQ(reply.status, 400) << query;
    EXPECT_NE(reply.body.find("INVALID_ARGUMENT"), std::string::npos) << reply.body;
  }
  grpc::ClientContext context;
  v1::TcoReply reply;
  EXPECT_EQ(Admin()->Tco(&context, {}, &reply).error_code(), grpc::StatusCode::INVALID_ARGUMENT);

  FakeWorker worker(address(), Priced(WorkerNamed("w-1", "paf"), 36));
  ASSERT_TRUE(worker.AwaitRegistered().ok());
  v1::Heartbeat bad;
  AddEntry(bad, "attention", "busy", "", 5);
  bad.mutable_ledger(0)->set_seconds(std::numeric_limits<double>::quiet_NaN());
  worker.SendHeartbeat(bad);
  v1::Heartbeat good;
  AddEntry(good, "attention", "busy", "", 6);
  worker.SendHeartbeat(good);  // its stream goes on
  const json::object told =
      AwaitTco("an account", [](const json::object& t) { return Workers(t) == 1; });
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.at("ledgers_refused").at("count").to_number<int>(), 1);
  EXPECT_NE(std::string(told.at("ledgers_refused").at("last").as_string()).find("worker w-1"),
            std::string::npos);
}

TEST_F(RouterTco, ARegistrationWithAPriceThatIsNoneIsRefused) {
  StartRouter();
  FakeWorker worker(address(), Priced(WorkerNamed("w-1", "paf"), -1));
  const absl::Status status = worker.AwaitRegistered();
  EXPECT_NE(std::string(status.message()).find("registration.dollars_per_hour.value is -1"),
            std::string::npos)
      << status;
}

}  // namespace
}  // namespace tandem::test
