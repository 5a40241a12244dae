#include "tests/unit/scheduler/control/controller_fixture.h"

namespace tandem::control {
namespace {

class GroupsTest : public ControllerTest {
 protected:
  std::vector<std::string> Names(const SendSetGroup& group) {
    std::vector<std::string> names;
    for (const FfnHolder& holder : group.holders) names.push_back(holder.worker.value());
    return names;
  }
  using Strings = std::vector<std::string>;
};

TEST_F(GroupsTest, AttentionWorkerIsReadyOnlyWithAnAcknowledgedGroup) {
  Connect();
  Register(MakeWorker("a", kPrefillAndAttention));
  EXPECT_TRUE(All<SendSetGroup>().empty());
  EXPECT_EQ(controller_->Snapshot().workers[0].state, "waiting_for_group");
  EXPECT_EQ(controller_->Snapshot().reason,
            "ffn: attention worker a waits for a group: no FFN worker is ready");
  Tell(WorkerRegistered{MakeWorker("f", kFfnOnly)});
  const SendSetGroup group = Only<SendSetGroup>();
  EXPECT_EQ(group.worker, WorkerId("a"));
  ASSERT_EQ(group.holders.size(), 1u);
  EXPECT_EQ(group.holders[0].address, "f:1");
  EXPECT_EQ(group.holders[0].shard_epoch, 7u);
  EXPECT_FALSE(controller_->Snapshot().ready);
  Answer(group.worker, group.command);
  EXPECT_TRUE(controller_->Snapshot().ready);
  EXPECT_EQ(controller_->Snapshot().workers[0].group, std::vector<WorkerId>{WorkerId("f")});
}

TEST_F(GroupsTest, JoinAndLossSendHigherVersions) {
  Connect();
  Register(MakeWorker("a", kPrefillAndAttention));
  Register(MakeWorker("f1", kFfnOnly));
  const uint64_t first = Only<SendSetGroup>().group_version;
  Register(MakeWorker("f2", kFfnOnly));
  EXPECT_EQ(Names(Only<SendSetGroup>()), (Strings{"f1", "f2"}));
  const uint64_t second = Only<SendSetGroup>().group_version;
  EXPECT_GT(second, first);
  Lose("f1");
  EXPECT_EQ(Names(Only<SendSetGroup>()), Strings{"f2"});
  EXPECT_GT(Only<SendSetGroup>().group_version, second);
  EXPECT_TRUE(controller_->Snapshot().ready) << "the group never was empty";
  Lose("f2");
  EXPECT_TRUE(Only<SendSetGroup>().holders.empty());
  EXPECT_FALSE(controller_->Snapshot().ready);
  EXPECT_EQ(controller_->Snapshot().reason,
            "ffn: attention worker a waits for a group: no FFN worker is ready");
  Register(MakeWorker("f1", kFfnOnly, 2));
  EXPECT_TRUE(controller_->Snapshot().ready);
}

TEST_F(GroupsTest, AnswerToAnOlderGroupDoesNotMakeReady) {
  Register(MakeWorker("a", kPrefillAndAttention));
  Tell(WorkerRegistered{MakeWorker("f1", kFfnOnly)});
  const SendSetGroup first = Only<SendSetGroup>();
  Tell(WorkerRegistered{MakeWorker("f2", kFfnOnly)});
  const SendSetGroup second = Only<SendSetGroup>();
  Answer(first.worker, first.command);
  EXPECT_FALSE(controller_->Snapshot().ready);
  Answer(second.worker, second.command);
  EXPECT_TRUE(controller_->Snapshot().ready);
}

WorkerDescription MakeShard(const std::string& id, FfnShard shard, uint64_t incarnation = 1) {
  WorkerDescription worker = MakeWorker(id, kFfnOnly, incarnation);
  worker.shard = shard;
  return worker;
}

TEST_F(GroupsTest, AGroupCoversEveryLayerOrTheWorkerIsNotReadyAndNamesThem) {
  Connect();
  Register(MakeWorker("a", kPrefillAndAttention));
  Register(MakeShard("f1", {0, 2}));
  EXPECT_TRUE(All<SendSetGroup>().empty());
  EXPECT_EQ(controller_->Snapshot().reason,
            "ffn: attention worker a waits for a group: no ready FFN worker holds layers [2, 4)");
  Register(MakeShard("f2", {2, FfnShard::kAllLayers}));
  EXPECT_EQ(Names(Only<SendSetGroup>()), (Strings{"f1", "f2"}));
  EXPECT_EQ(Only<SendSetGroup>().holders[1].shard, (FfnShard{2, 4})) << "as a number";
  EXPECT_TRUE(controller_->Snapshot().ready);
  Lose("f1");
  EXPECT_TRUE(Only<SendSetGroup>().holders.empty()) << "nobody needs half a group";
  EXPECT_FALSE(controller_->Snapshot().ready);
  EXPECT_EQ(controller_->Snapshot().reason,
            "ffn: attention worker a waits for a group: no ready FFN worker holds layers [0, 2)");
  Register(MakeShard("f1", {0, 2}, 2));
  EXPECT_TRUE(controller_->Snapshot().ready);
}

TEST_F(GroupsTest, SequencesKeepWhatIsLeftOfTheirGroup) {
  Connect();
  Register(MakeWorker("a", kPrefillAndAttention));
  Register(MakeShard("c0", {0, 4, 0, 2}));
  Register(MakeShard("c1", {0, 4, 1, 2}));
  Generate(MakeSpec("r"));
  Answer(WorkerId("a"), Only<SendDecode>().command);
  Lose("c1");
  EXPECT_EQ(Names(Only<SendSetGroup>()), Strings{"c0"});
  AnswerGroups();
  EXPECT_FALSE(controller_->Snapshot().ready) << "half a group is acknowledged, not a whole one";
  EXPECT_EQ(controller_->Snapshot().reason,
            "ffn: attention worker a waits for a group: no ready FFN worker holds layers [0, 4) "
            "column 1/2");
  Generate(MakeSpec("r2"));
  EXPECT_TRUE(All<SendDecode>().empty());
  Register(MakeShard("c1", {0, 4, 1, 2}, 2));
  EXPECT_TRUE(controller_->Snapshot().ready);
}

TEST_F(GroupsTest, ADrainingShardStaysUntilAnotherCoversItsLayers) {
  Register(MakeWorker("a", kPrefillAndAttention));
  Register(MakeShard("f1", {0, 2}));
  Register(MakeShard("f2", {2, 4}));
  Tell(DrainRequested{WorkerId("f2")});
  EXPECT_EQ(controller_->Snapshot().reason,
            "ffn: attention worker a waits for a group: no ready FFN worker holds layers [2, 4)");
  AnswerGroups();
  Register(MakeShard("f3", {2, 4}));
  EXPECT_EQ(controller_->Snapshot().workers[0].group,
            (std::vector<WorkerId>{WorkerId("f1"), WorkerId("f3")}));
  EXPECT_TRUE(controller_->Snapshot().ready);
}

TEST_F(GroupsTest, GroupsAreBalancedOverAttentionWorkers) {
  for (const char* id : {"a1", "a2", "a3", "a4"}) Register(MakeWorker(id, kPrefillAndAttention));
  Register(MakeWorker("f1", kFfnOnly));
  Register(MakeWorker("f2", kFfnOnly));
  std::map<std::string, int> first;
  for (const WorkerSnapshot& worker : controller_->Snapshot().workers) {
    if (!worker.group.empty()) first[worker.group[0].value()]++;
  }
  EXPECT_EQ(first["f1"], 2);
  EXPECT_EQ(first["f2"], 2);
}

TEST_F(GroupsTest, HolderThatWasReportedLostStandsLastAndIsDialledAnew) {
  Register(MakeWorker("a", kPrefillAndAttention));
  Register(MakeWorker("f1", kFfnOnly));
  Register(MakeWorker("f2", kFfnOnly));
  Tell(ShardLost{WorkerId("a"), WorkerId("f1"), "stream broke"});
  EXPECT_EQ(Names(Only<SendSetGroup>()), (Strings{"f2", "f1"}));
  AnswerGroups();
  Lose("f2");
  EXPECT_EQ(Names(Only<SendSetGroup>()), Strings{"f1"});
  AnswerGroups();
  Tell(ShardLost{WorkerId("a"), WorkerId("f1"), "stream broke"});
  EXPECT_EQ(Names(Only<SendSetGroup>()), Strings{"f1"});
  Tell(ShardLost{WorkerId("a"), WorkerId("unknown"), ""});
  EXPECT_TRUE(commands_.empty());
}

TEST_F(GroupsTest, SuspicionEndsWithTime) {
  Register(MakeWorker("a", kPrefillAndAttention));
  for (const char* id : {"f1", "f2", "f3"}) Register(MakeWorker(id, kFfnOnly));
  Tell(ShardLost{WorkerId("a"), WorkerId("f2"), "stream broke"});
  EXPECT_EQ(Names(Only<SendSetGroup>()), (Strings{"f1", "f3", "f2"}));
  AnswerGroups();
  for (int i = 0; i < 7; i++) {
    Advance(Duration::Seconds(4));
    for (const char* id : {"a", "f1", "f2", "f3"}) Heartbeat(id, {.kv_blocks_free = 64});
    EXPECT_TRUE(commands_.empty());
  }
  Advance(Duration::Seconds(2));
  Heartbeat("a", {.kv_blocks_free = 64});
  EXPECT_EQ(Names(Only<SendSetGroup>()), (Strings{"f1", "f2", "f3"}));
}

TEST_F(GroupsTest, DrainingHolderLeavesWhenItsAttentionWorkersHaveSwitched) {
  Register(MakeWorker("a", kPrefillAndAttention));
  Register(MakeWorker("f1", kFfnOnly));
  Register(MakeWorker("f2", kFfnOnly));
  Tell(DrainRequested{WorkerId("f1")});
  const SendSetGroup group = Only<SendSetGroup>();
  EXPECT_EQ(Names(group), Strings{"f2"});
  EXPECT_TRUE(All<SendDrain>().empty()) << "not before the switch is acknowledged";
  Answer(group.worker, group.command);
  EXPECT_EQ(Only<SendDrain>().worker, WorkerId("f1"));
}

TEST_F(GroupsTest, LastHolderDrainsOnlyAfterTheSequencesThatNeedIt) {
  Connect();
  Register(MakeWorker("a", kPrefillAndAttention));
  Register(MakeWorker("f", kFfnOnly));
  Generate(MakeSpec("r"));
  Answer(WorkerId("a"), Only<SendDecode>().command);
  Tell(SequencePrefilled{WorkerId("a"), Key("r")});
  Tell(DrainRequested{WorkerId("f")});
  EXPECT_TRUE(All<SendSetGroup>().empty());
  EXPECT_TRUE(All<SendDrain>().empty());
  EXPECT_FALSE(controller_->Snapshot().ready);
  Generate(MakeSpec("r2"));
  EXPECT_TRUE(All<SendDecode>().empty());
  Tell(SequenceEnded{WorkerId("a"), Key("r"), {EndReason::kEos, {}}});
  const SendSetGroup group = Only<SendSetGroup>();
  EXPECT_TRUE(group.holders.empty());
  Answer(group.worker, group.command);
  EXPECT_EQ(Only<SendDrain>().worker, WorkerId("f"));
}

TEST_F(GroupsTest, WorkerThatObeysAnotherRoutersGroupsStillTakesRequests) {
  Register(MakeWorker("a", kPrefillAndAttention));
  Tell(WorkerRegistered{MakeWorker("f", kFfnOnly)});
  Answer(WorkerId("a"), Only<SendSetGroup>().command,
         absl::FailedPreconditionError("epoch 9 rules"));
  EXPECT_TRUE(controller_->Snapshot().ready);
}

TEST_F(GroupsTest, WorkerThatCannotTakeItsGroupIsNotReadyAndSaysWhy) {
  Register(MakeWorker("a", kPrefillAndAttention));
  Tell(WorkerRegistered{MakeWorker("f", kFfnOnly)});
  Answer(WorkerId("a"), Only<SendSetGroup>().command, absl::InternalError("no address"));
  EXPECT_FALSE(controller_->Snapshot().ready);
  EXPECT_EQ(controller_->Snapshot().workers[0].state_reason, "no address");
}

}  // namespace
}  // namespace tandem::control
