#include "scheduler/step/reservations.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/check.h"

namespace tandem::step {
namespace {

uint64_t Length(const DecodeRequest& request) {
  return request.prompt_ids.size() + request.choices.front().emitted_ids.size();
}

}  // namespace

Reservations::Reservations(uint32_t layers, uint32_t context_tokens, KvBook& book)
    : layers_(layers), context_tokens_(context_tokens), book_(book) {}

uint32_t Reservations::PromptRows(const DecodeRequest& request) const {
  return static_cast<uint32_t>(Length(request) - 1);
}

// Prompt, emitted ids and one block more, but never past the sequence's end.
uint64_t Reservations::ReservedTokens(const DecodeRequest& request) const {
  return std::min<uint64_t>(Length(request) + book_.block_tokens(),
                            request.prompt_ids.size() + request.stop.max_tokens);
}

uint64_t Reservations::BlocksNeeded(const DecodeRequest& request) const {
  const uint64_t each = book_.BlocksFor(ReservedTokens(request));
  const uint64_t shared = PromptRows(request) / book_.block_tokens();
  return each + (request.choices.size() - 1) * (each - shared);
}

absl::Status Reservations::CheckFits(const DecodeRequest& request) const {
  const uint64_t longest = request.prompt_ids.size() + uint64_t{request.stop.max_tokens};
  const std::string asked = absl::StrCat(request.prompt_ids.size(),
                                         " prompt tokens and max_tokens ", request.stop.max_tokens);
  if (longest > context_tokens_) {
    return absl::InvalidArgumentError(
        absl::StrCat(asked, " exceed the context of ", context_tokens_, " tokens"));
  }
  const uint64_t kv_tokens = uint64_t{book_.total_blocks()} * book_.block_tokens();
  if (longest > kv_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(asked, " exceed the worker's KV of ", kv_tokens, " tokens"));
  }
  if (BlocksNeeded(request) > book_.total_blocks()) {
    return absl::InvalidArgumentError(absl::StrCat(
        request.choices.size(), " choices of ", request.prompt_ids.size(), " prompt tokens need ",
        BlocksNeeded(request), " KV blocks; the worker has ", book_.total_blocks()));
  }
  return absl::OkStatus();
}

absl::StatusOr<Reservation*> Reservations::Reserve(std::shared_ptr<const DecodeRequest> request,
                                                   Instant now) {
  const uint64_t needed = BlocksNeeded(*request);
  if (needed > book_.free_blocks()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("request ", request->request.value(), " needs ", needed, " KV blocks; ",
                     book_.free_blocks(), " of ", book_.total_blocks(), " are free"));
  }
  auto reservation = std::make_unique<Reservation>();
  reservation->prompt_rows = PromptRows(*request);
  reservation->reserved_tokens = ReservedTokens(*request);
  reservation->layer_rows.resize(layers_);
  if (!request->local_prefill && reservation->prompt_rows > 0)
    reservation->lease_end = now + request->lease;
  TANDEM_CHECK(book_.Grow(reservation->blocks, reservation->reserved_tokens).ok());
  const uint64_t shared = reservation->prompt_rows / book_.block_tokens();
  for (size_t i = 1; i < request->choices.size(); i++) {
    reservation->spares.emplace_back();
    const uint64_t own_tokens = (reservation->blocks.size() - shared) * book_.block_tokens();
    TANDEM_CHECK(book_.Grow(reservation->spares.back(), own_tokens).ok());
  }
  reservation->request = std::move(request);
  Reservation* added = reservation.get();
  TANDEM_CHECK(open_.emplace(added->request->reservation, std::move(reservation)).second);
  return added;
}

Reservation* Reservations::Find(const ReservationId& id) {
  const auto it = open_.find(id);
  return it == open_.end() ? nullptr : it->second.get();
}

const Reservation* Reservations::Find(const ReservationId& id) const {
  const auto it = open_.find(id);
  return it == open_.end() ? nullptr : it->second.get();
}

bool Reservations::Holds(const ReservationId& id) const {
  return open_.contains(id) || abandoned_.contains(id);
}

absl::StatusOr<const BlockTable*> Reservations::Destination(const ReservationId& id,
                                                            uint32_t attempt, uint32_t layer,
                                                            uint32_t first_position,
                                                            uint32_t count) const {
  const Reservation* reservation = Find(id);
  if (reservation == nullptr || reservation->request->local_prefill ||
      reservation->request->choices.front().attempt != attempt) {
    return absl::NotFoundError(
        absl::StrCat("no reservation ", id.value(), " of attempt ", attempt, " waits for KV"));
  }
  if (layer >= layers_) {
    return absl::InvalidArgumentError(
        absl::StrCat("reservation ", id.value(), ": layer ", layer, " of ", layers_));
  }
  const uint64_t end = uint64_t{first_position} + count;
  if (count == 0 || end > reservation->prompt_rows) {
    return absl::InvalidArgumentError(absl::StrCat("reservation ", id.value(), ": KV rows ",
                                                   first_position, " to ", end, " of ",
                                                   reservation->prompt_rows));
  }
  if (first_position > reservation->layer_rows[layer]) {
    return absl::InvalidArgumentError(absl::StrCat(
        "reservation ", id.value(), ": KV rows from ", first_position, " leave a gap after the ",
        reservation->layer_rows[layer], " of layer ", layer));
  }
  return &reservation->blocks;
}

uint32_t Reservations::OnRows(Reservation& reservation, uint32_t layer, uint32_t first_position,
                              uint32_t count, Instant now) {
  uint32_t& rows = reservation.layer_rows[layer];
  TANDEM_CHECK(first_position <= rows);
  rows = std::max(rows, first_position + count);
  reservation.lease_end = now + reservation.request->lease;
  return rows;
}

bool Reservations::IsComplete(const Reservation& reservation) const {
  return std::all_of(reservation.layer_rows.begin(), reservation.layer_rows.end(),
                     [&](uint32_t rows) { return rows == reservation.prompt_rows; });
}

std::vector<BlockTable> Reservations::Split(Reservation& reservation, size_t choices,
                                            std::vector<KvBook::BlockCopy>& copies) {
  TANDEM_CHECK(choices >= 1 && reservation.spares.size() + 1 == choices);
  std::vector<BlockTable> tables(choices);
  // The spare blocks were held for these: with them back in the book, neither call can fail.
  for (size_t i = 1; i < choices; i++) {
    book_.Release(reservation.spares[i - 1]);
    absl::StatusOr<BlockTable> fork =
        book_.Fork(reservation.blocks, reservation.prompt_rows, copies);
    TANDEM_CHECK(fork.ok());
    tables[i] = *std::move(fork);
    TANDEM_CHECK(book_.Grow(tables[i], reservation.reserved_tokens).ok());
  }
  tables[0] = std::move(reservation.blocks);
  open_.erase(open_.find(reservation.request->reservation));
  return tables;
}

void Reservations::DropSpare(Reservation& reservation) {
  TANDEM_CHECK(!reservation.spares.empty());
  book_.Release(reservation.spares.back());
  reservation.spares.pop_back();
}

void Reservations::Free(Reservation& reservation) {
  TANDEM_CHECK(reservation.spares.empty());
  const ReservationId id = reservation.request->reservation;
  if (reservation.prefill_started && !reservation.prefill_failed) {
    abandoned_.insert(open_.extract(id));
  } else {
    book_.Release(reservation.blocks);
    open_.erase(id);
  }
}

bool Reservations::FreeAbandoned(const ReservationId& id) {
  const auto it = abandoned_.find(id);
  if (it == abandoned_.end()) return false;
  book_.Release(it->second->blocks);
  abandoned_.erase(it);
  return true;
}

uint64_t Reservations::abandoned_blocks() const {
  uint64_t blocks = 0;
  for (const auto& [id, reservation] : abandoned_) blocks += reservation->blocks.size();
  return blocks;
}

uint32_t Reservations::waiting() const {
  size_t sequences = 0;
  for (const auto& [id, reservation] : open_) sequences += 1 + reservation->spares.size();
  return static_cast<uint32_t>(sequences);
}

Instant Reservations::NextDeadline() const {
  Instant next = Instant::Never();
  for (const auto& [id, reservation] : open_) next = std::min(next, reservation->lease_end);
  return next;
}

std::vector<ReservationId> Reservations::Expired(Instant now) const {
  std::vector<ReservationId> expired;
  for (const auto& [id, reservation] : open_) {
    if (reservation->lease_end <= now) expired.push_back(id);
  }
  return expired;
}

}  // namespace tandem::step
